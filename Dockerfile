# syntax=docker/dockerfile:1
FROM rust:1.95-bookworm AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends protobuf-compiler libprotobuf-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /stoker
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/stoker/target \
    cargo build --locked --release --bin stoker \
 && install -D target/release/stoker /out/stoker

# glibc, because NVML is loaded with dlopen; CA certificates; no shell. Root: it writes containerd's and kubelet's places.
FROM gcr.io/distroless/cc-debian12
COPY --from=build /out/stoker /usr/bin/stoker
ENTRYPOINT ["/usr/bin/stoker"]
CMD ["agent"]
