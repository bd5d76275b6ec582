# syntax=docker/dockerfile:1
FROM rust:1.95-bookworm AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends \
      protobuf-compiler libprotobuf-dev nasm autoconf automake libtool \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /stoker
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/stoker/target \
    cargo build --locked --release --bin stoker \
 && install -D target/release/stoker /out/stoker

# glibc, because NVML is loaded with dlopen, and the same as the build's; CA certificates; no shell, no package manager.
# A release names the base by its digest: gcr.io/distroless/cc-debian12@sha256:…
FROM gcr.io/distroless/cc-debian12
LABEL org.opencontainers.image.title="stoker" \
      org.opencontainers.image.description="Warms container images and model weights before GPU pods land" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/stoker /usr/local/bin/stoker
# Root owns what it writes: containerd's socket and snapshots, the cache, the state directory. Which of root's
# capabilities it needs is said in deploy/base/daemonset.yaml.
USER 0:0
WORKDIR /
ENTRYPOINT ["/usr/local/bin/stoker"]
CMD ["--help"]
