#!/bin/sh
# One night of a shop: decide on the canary if there is one, else retrain and publish; keep signatures valid.
# Run it once a day, after the compaction; after an error or a kill run it again.
#
# The folder SHOP holds `active`, a link to the checkpoint that serves, `canary`, a link to the one on trial if there is
# one, checkpoints/NAME with their bundles releases/NAME, and releases/latest, a link to the bundle that serves.
set -eu

cd "${SHOP:-/srv/shop}"
EVENTS=${EVENTS:-events/}                 # folder or URL that the collector writes to
REPOSITORY=${REPOSITORY:-repository/}     # folder or URL of the signed releases
KEYS=${KEYS:-keys/}                       # online keys
ITEMS=${ITEMS:-items.parquet}             # the catalog from now on
PERCENT=${PERCENT:-5}                     # of the installs, that get a canary
day=${DAY:-$(date +%F)}
mkdir -p checkpoints releases

field() {   # FILE NAME: print a field of a JSON file
  python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$1" "$2"
}

signed() {  # run a command of `sanderling release` that signs
  sanderling release "$@" --repository "$REPOSITORY" --keys "$KEYS"
}

point() {   # LINK TARGET: let a link point to something else, in one step
  ln -sfn "$2" "$1.new"
  mv -fT "$1.new" "$1"
}

serve() {   # NAME: what all devices get from now on
  point active "checkpoints/$1"
  point releases/latest "$1"
  rm -f canary
}

ship() {    # NAME PERCENT: publish a bundle; with 100 it serves, with less it is the canary
  # A kill between publishing and pointing must not let the next night make the same number again.
  echo "$1 $2" > publishing.new
  mv publishing.new publishing
  signed publish --bundle "releases/$1" --percent "$2"
  if [ "$2" = 100 ]; then serve "$1"; else point canary "checkpoints/$1"; fi
  rm publishing
}

undo() {    # NAME NUMBER: withdraw a canary; devices that have it get the active policy under a higher number
  signed withdraw --release "$2"
  [ -e "checkpoints/$1-undone" ] ||
    sanderling release again --checkpoint active --above canary --out "checkpoints/$1-undone"
  [ -e "releases/$1-undone" ] ||
    sanderling quantize "checkpoints/$1-undone" --out "releases/$1-undone" --encoder-of releases/latest
  ship "$1-undone" 100
}

look() {    # decide on the canary
  name=$(basename "$(readlink canary)")
  number=$(field canary/config.json release)
  status=0
  sanderling release canary --events "$EVENTS" --checkpoint canary --percent "$PERCENT" || status=$?
  case $status in
    0) signed rollout --release "$number" --percent 100; serve "$name" ;;
    3) undo "$name" "$number" ;;
    4) ;;           # not decided yet
    *) exit 1 ;;
  esac
}

learn() {   # retrain, and publish what the release gate lets through
  status=0
  sanderling retrain --events "$EVENTS" --checkpoint active --out "checkpoints/$day" --items "$ITEMS" \
    --bundle "releases/$day" --encoder-of releases/latest || status=$?
  case $status in
    0) if [ "$(field "checkpoints/$day/metrics.json" verdict)" = canary ]; then ship "$day" "$PERCENT"; else ship "$day" 100; fi ;;
    3|4) ;;         # held, or nothing new: the active release stays
    *) exit 1 ;;
  esac
}

if [ -e publishing ]; then
  ship $(cat publishing)
elif [ -e canary ]; then
  look              # the next night learns from what serves then
elif [ "$(readlink active)" = "checkpoints/$day" ]; then
  echo "the release of $day serves already"
else
  learn
fi
signed refresh --if-within 10
