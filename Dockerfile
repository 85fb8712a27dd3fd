# The image of the server: `docker build --tag holdfast .`; "In a container" in docs/operations.md has the rest.
# tests/e2e/test_container.py runs these instructions without a Docker engine.

FROM python:3.11-slim-trixie AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY pyproject.toml constraints.txt README.md ./
COPY server server
COPY clients/python clients/python
# Without isolation: the build backend, too, is the version that constraints.txt names.
RUN pip install --constraint constraints.txt hatchling && \
    pip wheel --no-deps --no-build-isolation --wheel-dir /wheels .
# Wheels only: neither stage has a compiler. The environment goes without pip.
RUN python -m venv --without-pip /opt/holdfast && \
    pip --python /opt/holdfast/bin/python install --only-binary :all: --constraint constraints.txt /wheels/*.whl

FROM python:3.11-slim-trixie
LABEL org.opencontainers.image.title="Holdfast" \
      org.opencontainers.image.description="A storage sidecar over gRPC"
# Nothing is installed from here on: what the base image has for that goes.
RUN rm -rf /usr/local/lib/python3.*/site-packages/* /usr/local/lib/python3.*/ensurepip /usr/local/bin/pip* \
        /usr/local/bin/wheel && \
    install --directory --mode=0700 --owner=10001 --group=10001 /data
COPY --from=build /opt/holdfast /opt/holdfast
ENV PATH=/opt/holdfast/bin:$PATH
# The base image has no bytecode of the standard library, and the user below can write none: each start, and so each
# health check, would compile it anew. This leaves the bytecode of what the server imports.
RUN holdfast-server settings >/dev/null
# Within a container loopback is the container itself. There is no TLS and no authentication yet: publish the ports on
# 127.0.0.1 only, and in a pod set HOLDFAST_LISTEN=127.0.0.1:4653.
ENV HOLDFAST_LISTEN=0.0.0.0:4653 HOLDFAST_HTTP=0.0.0.0:4654 HOLDFAST_DATA_DIR=/data
EXPOSE 4653 4654
VOLUME /data
USER 10001:10001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["holdfast-server", "health"]
ENTRYPOINT ["holdfast-server"]
CMD ["serve"]
