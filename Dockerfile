# labelstream, for `run` and `serve`, with the extras `redaction`, `redis`, `registry`, `tracing`: all from the lock file,
# nothing to build with, nobody's root.
#
#     docker build --build-arg VERSION=0.1.0 --build-arg REVISION="$(git rev-parse HEAD)" -t labelstream:0.1.0 .
#
# Any image with Python 3.11 or later and its venv module is a base. Name it with its digest where builds are to be repeatable.
ARG PYTHON_IMAGE=docker.io/library/python:3.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
WORKDIR /build
COPY requirements-image.txt requirements-build.txt ./
# Two environments: pip and the build backend stay in /build, what they install goes to /opt/labelstream.
RUN python3 -m venv tools && python3 -m venv --without-pip /opt/labelstream \
    && tools/bin/pip --no-cache-dir --disable-pip-version-check install --require-hashes -r requirements-build.txt \
    && tools/bin/pip --no-cache-dir --disable-pip-version-check --python /opt/labelstream/bin/python \
        install --require-hashes --only-binary :all: -r requirements-image.txt
COPY pyproject.toml README.md LICENSE ./
COPY config/triage.yaml config/moderation.yaml config/
COPY service service
RUN tools/bin/pip --no-cache-dir wheel --no-deps --no-build-isolation --wheel-dir wheels . \
    && tools/bin/pip --no-cache-dir --python /opt/labelstream/bin/python install --no-deps wheels/*.whl

FROM ${PYTHON_IMAGE}
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="labelstream" \
      org.opencontainers.image.description="Streams documents from Kafka through text classifiers and back to Kafka" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# Python's official images come with a pip of their own, which nothing here needs.
RUN rm -rf /usr/local/lib/python3*/site-packages/pip /usr/local/lib/python3*/site-packages/pip-* /usr/local/bin/pip*
COPY --from=build /opt/labelstream /opt/labelstream
ENV PATH=/opt/labelstream/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    LABELSTREAM_HEALTH__HOST=0.0.0.0
# A number, so that Kubernetes can see that it is not root. The root file system may be read-only: only /tmp is written to.
USER 10001:10001
WORKDIR /etc/labelstream
EXPOSE 9464
STOPSIGNAL SIGTERM
# Of `run`; what runs `serve` asks for its port. It asks whether the process lives, never whether Kafka or a classifier does.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python3", "-c", "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:' + os.environ.get('LABELSTREAM_HEALTH__PORT', '9464') + '/livez', timeout=4)"]
ENTRYPOINT ["labelstream"]
CMD ["run", "labelstream.yaml"]
