# The lab with torch (CPU): nightly retraining, bundles, releases; deploy/Dockerfile is the collector's image. It installs
# the wheels of `make wheel`, and from elsewhere only files whose hashes stand in deploy/requirements-*.txt (`make lock`).
#
#     make wheel && docker build -f deploy/lab.Dockerfile -t sanderling-lab .
#     docker run -v shop:/srv/shop -v keys:/keys:ro -e KEYS=/keys sanderling-lab nightly.sh
FROM python:3.11-slim

WORKDIR /build
COPY deploy/requirements-torch.txt deploy/requirements-lab.txt ./
RUN pip install --no-cache-dir --require-hashes --only-binary :all: --no-deps -r requirements-torch.txt \
      --index-url https://download.pytorch.org/whl/cpu \
 && pip install --no-cache-dir --require-hashes --only-binary :all: --no-deps -r requirements-lab.txt

COPY dist dist
COPY deploy/nightly.sh /usr/local/bin/nightly.sh
RUN pip install --no-cache-dir --no-deps --no-index --find-links dist sanderling sanderling-quantize sanderling-trainer \
 && pip check \
 && rm -rf /build \
 && chmod 755 /usr/local/bin/nightly.sh \
 && useradd --uid 10001 --create-home lab \
 && install -d -o lab /srv/shop

USER lab
WORKDIR /srv/shop
VOLUME /srv/shop
CMD ["nightly.sh"]
