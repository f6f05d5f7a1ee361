# One image for everything: `worker`, `source`, `source setup`, `verify`, `doctor` … are its commands.
FROM python:3.12-slim AS build
# faust-streaming has no wheel for ARM and is compiled there.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/lately
COPY deploy/requirements.txt /build/
RUN /opt/lately/bin/pip install --no-cache-dir --require-hashes --requirement /build/requirements.txt
COPY setup.cfg pyproject.toml README.md LICENSE /build/
COPY app /build/app
COPY agents /build/agents
COPY chunks /build/chunks
COPY commands /build/commands
COPY domain /build/domain
COPY source /build/source
COPY tables /build/tables
COPY web /build/web
RUN /opt/lately/bin/pip install --no-cache-dir --no-deps /build && /opt/lately/bin/pip check

FROM python:3.12-slim
# A folder in a volume, with room beside it: `lately verify` keeps its copy in <LATELY_DATA_DIR>-verify.
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin lately \
    && install --directory --owner=lately --group=lately --mode=0755 /var/lib/lately
COPY --from=build /opt/lately /opt/lately
ENV PATH=/opt/lately/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    LATELY_DATA_DIR=/var/lib/lately/worker
WORKDIR /var/lib/lately
USER 10001:10001
VOLUME /var/lib/lately
EXPOSE 6066
# Alive, not ready: a worker that recovers its tables must not be started again. Other commands replace or disable it.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=6 CMD ["python", "-c", \
    "import os, urllib.request as r; r.urlopen('http://%s:%s/livez' % (os.environ.get('LATELY_WEB_HOST', '127.0.0.1'), os.environ.get('LATELY_WEB_PORT', '6066')), timeout=4)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["lately"]
CMD ["worker", "-l", "info"]
