ARG BUILD_IMAGE=golang:1.26.8
ARG RUN_IMAGE=scratch

# Go crosses over to the target by itself, so that nothing is emulated.
FROM --platform=${BUILDPLATFORM} ${BUILD_IMAGE} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG TARGETOS
ARG TARGETARCH
ARG VERSION=dev
ARG REVISION=unknown
# nodemo leaves out the demo, and with it the embedded Redis and identity provider.
# The same source and arguments give the same binary, wherever and whenever it is built.
RUN CGO_ENABLED=0 GOOS=${TARGETOS} GOARCH=${TARGETARCH} go build -trimpath -buildvcs=false -tags nodemo \
    -ldflags="-s -w -X main.version=${VERSION} -X main.revision=${REVISION}" -o /gatehouse ./cmd/gatehouse

FROM ${RUN_IMAGE}
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Gatehouse" \
      org.opencontainers.image.description="API gateway that validates tokens at the edge" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# The authorities that an identity provider's certificate is checked against.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /gatehouse /gatehouse
# A number, which Kubernetes' runAsNonRoot can check, and scratch has no /etc/passwd to look a name up in.
USER 65532:65532
EXPOSE 8080 9902
# Asks server.status of the file. Kubernetes does not look at this; its probes ask /livez and /readyz.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["/gatehouse", "healthcheck", "--config", "/etc/gatehouse/routes.yaml"]
# SIGTERM drains: readiness goes false, requests in flight finish, then exit 0.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/gatehouse"]
CMD ["serve", "--config", "/etc/gatehouse/routes.yaml"]
