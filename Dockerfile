ARG BUILD_IMAGE=golang:1.26.8
ARG RUN_IMAGE=scratch

FROM ${BUILD_IMAGE} AS build
WORKDIR /src
COPY . .
# nodemo leaves out the demo, and with it the embedded Redis and identity provider.
RUN CGO_ENABLED=0 go build -trimpath -tags nodemo -ldflags="-s -w" -o /gatehouse ./cmd/gatehouse

FROM ${RUN_IMAGE}
ARG VERSION=dev
LABEL org.opencontainers.image.title="Gatehouse" \
      org.opencontainers.image.description="API gateway that validates tokens at the edge" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
# The authorities that an identity provider's certificate is checked against.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /gatehouse /gatehouse
# nobody's number, since scratch has no /etc/passwd to look a name up in.
USER 65532:65532
EXPOSE 8080 9902
# SIGTERM drains: readiness goes false, requests in flight finish, then exit 0.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/gatehouse"]
CMD ["serve", "--config", "/etc/gatehouse/routes.yaml"]
