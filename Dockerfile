# Reprise: the shim, the operators' CLI, and the CRIU they drive.
#
#     docker build -t reprise .
#
# In it, `reprise node install --root /host` brings a node to run Reprise, as
# hack/deploy's DaemonSet does. Both bases are arguments, for builds behind a mirror:
#     --build-arg BUILDER=... --build-arg BASE=...
# BUILDER is a Debian 13, with Rust >= 1.88 on PATH or else taken from its backports:
# libcontainer 0.7 says 1.85, but does not compile with it.
ARG BUILDER=debian:trixie
ARG BASE=debian:trixie-slim

FROM ${BUILDER} AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates gcc libc6-dev libseccomp-dev make pkg-config protobuf-compiler \
    && if ! command -v cargo; then \
        sed -E '/^Suites: trixie /s/$/ trixie-backports/;/^Suites: trixie$/s/$/ trixie-backports/;s/^(deb .*) trixie main$/&\n\1 trixie-backports main/' -i $(find /etc/apt -name '*.sources' -o -name '*.list') \
        && apt-get update && apt-get install -y --no-install-recommends -t trixie-backports cargo; fi \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN hack/build \
    && install -D -t /out/usr/local/bin target/release/containerd-shim-reprise-v2 target/release/reprise

# CRIU and the libraries it runs on: Debian 13 has 4.1 in its sources.
FROM ${BUILDER} AS criu
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev make pkg-config xz-utils debian-archive-keyring \
        patchelf protobuf-c-compiler protobuf-compiler libprotobuf-dev libprotobuf-c-dev libbsd-dev libcap-dev \
        libgnutls28-dev libnet1-dev libnftables-dev libnl-3-dev uuid-dev python3
COPY hack/tools/criu/build /build-criu
RUN /build-criu /out/usr/local \
    && mkdir -p /out/usr/local/lib/reprise \
    && ldd /out/usr/local/bin/criu | awk '$3 ~ "^/" { print $3 }' \
        | grep -v -E '/(libc|ld-linux[^/]*)\.so' | xargs -I{} cp -L {} /out/usr/local/lib/reprise/ \
    && patchelf --force-rpath --set-rpath '$ORIGIN/../lib/reprise' /out/usr/local/bin/criu

# What the installer runs from here: nsenter, env, sleep; they are in every Debian.
FROM ${BASE}
COPY --from=build /out/ /
# criu finds its libraries beside itself, here and wherever the installer puts both.
COPY --from=criu /out/ /
CMD ["reprise", "--help"]
