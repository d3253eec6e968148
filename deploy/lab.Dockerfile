# The lab with torch (CPU): nightly retraining, bundles, releases; deploy/Dockerfile is the collector's image.
#
#     docker build -f deploy/lab.Dockerfile -t sanderling-lab .
#     docker run -v shop:/srv/shop -v keys:/keys:ro -e KEYS=/keys sanderling-lab nightly.sh
FROM python:3.11-slim

WORKDIR /build
COPY constraints.txt .
COPY engine engine
COPY quantize quantize
COPY trainer trainer
COPY deploy/nightly.sh /usr/local/bin/nightly.sh
RUN pip install --no-cache-dir --constraint constraints.txt --extra-index-url https://download.pytorch.org/whl/cpu \
      './engine[text,jit,update,cli]' './quantize[cpu]' './trainer[cpu,minilm]' \
 && rm -rf /build \
 && chmod 755 /usr/local/bin/nightly.sh \
 && useradd --uid 10001 --create-home lab \
 && install -d -o lab /srv/shop

USER lab
WORKDIR /srv/shop
VOLUME /srv/shop
CMD ["nightly.sh"]
