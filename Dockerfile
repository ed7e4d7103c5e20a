# syntax=docker/dockerfile:1
# oomstream and its pinned dependencies in a virtual environment, run by a user without rights.
# On other processors than x86_64 the image has no TiKV store: its client has a wheel for x86_64 only.

FROM python:3.11.14-slim-bookworm AS build
WORKDIR /build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY constraints.txt ./
RUN python -m venv /opt/oomstream \
    && /opt/oomstream/bin/pip install -c constraints.txt pip setuptools wheel
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY agents agents
COPY query query
COPY schemas schemas
COPY stores stores
COPY streams streams
# --no-build-isolation: the build uses the pinned setuptools above.
RUN /opt/oomstream/bin/pip install -c constraints.txt --no-build-isolation . \
    && /opt/oomstream/bin/pip uninstall --yes setuptools wheel

FROM python:3.11.14-slim-bookworm
LABEL org.opencontainers.image.title="oomstream" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/oomstream/bin:$PATH PYTHONUNBUFFERED=1
RUN groupadd --system --gid 10001 oomstream \
    && useradd --system --uid 10001 --gid oomstream --home-dir /data --create-home oomstream
COPY --from=build /opt/oomstream /opt/oomstream
USER 10001:10001
# Embedded stores, where no settings name servers, are in /data/.oomstream.
WORKDIR /data
# A worker that stands still ends itself; this asks whether history and the broker can be reached from here.
HEALTHCHECK --interval=60s --timeout=45s --start-period=60s --retries=3 \
    CMD ["oomstream", "status", "-o", "json"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["oomstream"]
CMD ["worker"]
