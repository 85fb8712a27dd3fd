# MinIO for compose.yaml, from source: the community image is no longer updated. The version is the Makefile's.

FROM golang:1.26-trixie AS build
ARG MINIO_VERSION=v0.0.0-20260212201848-7aac2a2c5b7c
RUN CGO_ENABLED=0 GOBIN=/out go install github.com/minio/minio@$MINIO_VERSION

FROM debian:trixie-slim
RUN install --directory --mode=0700 --owner=10001 --group=10001 /data
COPY --from=build /out/minio /usr/local/bin/minio
EXPOSE 9000
VOLUME /data
USER 10001:10001
ENTRYPOINT ["minio"]
CMD ["server", "--quiet", "--address", ":9000", "/data"]
