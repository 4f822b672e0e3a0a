package test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// testService is a gRPC backend with a method of each kind.
type testService struct {
	pb.UnimplementedTestServiceServer
}

func (testService) EmptyCall(context.Context, *pb.Empty) (*pb.Empty, error) {
	return nil, status.Error(codes.NotFound, "no hero Zoë, 100%\n")
}

func (testService) UnaryCall(ctx context.Context, r *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	_ = grpc.SetHeader(ctx, metadata.Pairs("x-head", "1", "x-bin", "\x00\xff"))
	_ = grpc.SetTrailer(ctx, metadata.Pairs("x-trail", "2"))
	return &pb.SimpleResponse{Payload: r.GetPayload(), Username: strings.Join(md.Get("x-jwt-sub"), ",")}, nil
}

func (testService) StreamingOutputCall(r *pb.StreamingOutputCallRequest, s grpc.ServerStreamingServer[pb.StreamingOutputCallResponse]) error {
	for range r.GetResponseParameters() {
		if err := s.Send(&pb.StreamingOutputCallResponse{Payload: r.GetPayload()}); err != nil {
			return err
		}
	}
	return status.Error(codes.OutOfRange, "no more")
}

func (testService) StreamingInputCall(s grpc.ClientStreamingServer[pb.StreamingInputCallRequest, pb.StreamingInputCallResponse]) error {
	sum := 0
	for {
		r, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return s.SendAndClose(&pb.StreamingInputCallResponse{AggregatedPayloadSize: int32(sum)})
		} else if err != nil {
			return err
		}
		sum += len(r.GetPayload().GetBody())
	}
}

func (testService) FullDuplexCall(s grpc.BidiStreamingServer[pb.StreamingOutputCallRequest, pb.StreamingOutputCallResponse]) error {
	for {
		r, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := s.Send(&pb.StreamingOutputCallResponse{Payload: r.GetPayload()}); err != nil {
			return err
		}
	}
}

// newGRPC starts a gRPC backend with a health service and returns its address.
func newGRPC(t *testing.T, options ...grpc.ServerOption) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(options...)
	pb.RegisterTestServiceServer(s, testService{})
	grpc_health_v1.RegisterHealthServer(s, health.NewServer())
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return l.Addr().String()
}

func (g *gateway) grpc(t *testing.T, creds credentials.TransportCredentials) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(g.listen, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestGRPC(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	shown := ca.issue(t, "127.0.0.1")
	p := newIDP(t)
	plain := newGRPC(t)
	secure := newGRPC(t, grpc.Creds(credentials.NewServerTLSFromCert(new(shown.shown(t)))))
	token := p.token(t)
	for name, c := range map[string]struct {
		tls, target string
		creds       credentials.TransportCredentials
	}{
		"h2c to h2c": {"", "h2c://" + plain, insecure.NewCredentials()},
		"h2c to h2":  {"", "https://" + secure, insecure.NewCredentials()},
		"h2 to h2c":  {"\n  tls:\n    cert_file: api.pem\n    key_file: api.key", "h2c://" + plain, credentials.NewTLS(trusting(ca))},
		"h2 to h2":   {"\n  tls:\n    cert_file: api.pem\n    key_file: api.key", "https://" + secure, credentials.NewTLS(trusting(ca))},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			upstreamTLS := ""
			if strings.HasPrefix(c.target, "https") {
				upstreamTLS = "    tls:\n      ca_file: ca.pem\n"
			}
			g := start(t, fill(`
server:
  ADDRESSESTLS
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
upstreams:
  grpc:
    targets: ["TARGET"]
UPSTREAMroutes:
  - match: POST /grpc.testing.TestService/{method}
    privileges: [READ_HEROES]
    upstream: grpc
  - match: POST /grpc.health.v1.Health/{method}
    public: true
    upstream: grpc
`, "ADDRESSESTLS", "ADDRESSES"+c.tls, "IDP", p.URL, "TARGET", c.target, "UPSTREAM", upstreamTLS), append(shown.files("api"), file{"ca.pem", ca.cert})...)
			conn := g.grpc(t, c.creds)
			everyKindOfCall(t, conn, token)
		})
	}
}

func everyKindOfCall(t *testing.T, conn *grpc.ClientConn, token string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	healthy := grpc_health_v1.NewHealthClient(conn)
	if r, err := healthy.Check(ctx, &grpc_health_v1.HealthCheckRequest{}); err != nil || r.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Fatalf("health: %v %v", r, err)
	}
	watching, leave := context.WithCancel(ctx)
	watch, err := healthy.Watch(watching, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := watch.Recv(); err != nil || r.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("a stream that lasts: %v %v", r, err)
	}
	leave()

	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token, "x-jwt-sub", "forged")
	heroes := pb.NewTestServiceClient(conn)
	payload := &pb.Payload{Body: make([]byte, 100_000)}
	var head, trail metadata.MD
	r, err := heroes.UnaryCall(ctx, &pb.SimpleRequest{Payload: payload}, grpc.Header(&head), grpc.Trailer(&trail))
	if err != nil || len(r.GetPayload().GetBody()) != 100_000 || r.GetUsername() != "alice" {
		t.Fatalf("unary: %v %q", err, r.GetUsername())
	}
	if fmt.Sprint(head.Get("x-head"), head.Get("x-bin"), trail.Get("x-trail")) != "[1] [\x00\xff] [2]" {
		t.Errorf("metadata: %v, then %v", head, trail)
	}
	// A backend's own answer of nothing but trailers, with an odd message.
	if _, err := heroes.EmptyCall(ctx, &pb.Empty{}); status.Code(err) != codes.NotFound || status.Convert(err).Message() != "no hero Zoë, 100%\n" {
		t.Errorf("an error of the backend's: %v", err)
	}
	down, err := heroes.StreamingOutputCall(ctx, &pb.StreamingOutputCallRequest{Payload: payload, ResponseParameters: make([]*pb.ResponseParameters, 5)})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for err == nil {
		if _, err = down.Recv(); err == nil {
			n++
		}
	}
	if n != 5 || status.Code(err) != codes.OutOfRange {
		t.Errorf("server streaming: %d messages, then %v", n, err)
	}
	up, err := heroes.StreamingInputCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		_ = up.Send(&pb.StreamingInputCallRequest{Payload: payload})
	}
	if r, err := up.CloseAndRecv(); err != nil || r.GetAggregatedPayloadSize() != 500_000 {
		t.Errorf("client streaming: %v %v", r, err)
	}
	both, err := heroes.FullDuplexCall(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 5 { // each is answered before the next is sent
		_ = both.Send(&pb.StreamingOutputCallRequest{Payload: &pb.Payload{Body: []byte{byte(n)}}})
		if r, err := both.Recv(); err != nil || r.GetPayload().GetBody()[0] != byte(n) {
			t.Fatalf("both ways: %v %v", r, err)
		}
	}
	_ = both.CloseSend()
	if _, err := both.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the end: %v", err)
	}

	// The server may end a call before the client has sent all, in headers alone.
	for n := range 20 {
		ended, err := heroes.HalfDuplexCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for range n % 3 {
			_ = ended.Send(&pb.StreamingOutputCallRequest{Payload: payload})
		}
		if _, err := ended.Recv(); status.Code(err) != codes.Unimplemented || !strings.Contains(err.Error(), "HalfDuplexCall") {
			t.Fatalf("ended by the server: %v", err)
		}
	}
}

func TestRefusalsToGRPC(t *testing.T) {
	t.Parallel()
	p := newIDP(t)
	g := start(t, fill(`
issuers:
  main:
    issuer: IDP
    audiences: [https://heroes.example]
limits:
  few:
    key: [route]
    rate: 1/1h
routes:
  - name: call
    match: POST /grpc.testing.TestService/UnaryCall
    privileges: [READ_HEROES]
    upstream: http://NOBODY
  - match: POST /grpc.testing.TestService/HalfDuplexCall
    public: true
    limits: [few]
    upstream: h2c://NOBODY
  - match: POST /grpc.testing.TestService/EmptyCall
    public: true
    timeout: 300ms
    upstream: HANGS
  - match: GET /grpc.testing.TestService/CacheableUnaryCall
    public: true
    upstream: http://NOBODY
`, "IDP", p.URL, "NOBODY", freeAddress(t), "HANGS", hanging(t).URL))
	conn := g.grpc(t, insecure.NewCredentials())
	good := "Bearer " + p.token(t)
	for _, c := range []struct {
		method, token string
		want          codes.Code
		reason        string
		status        int
	}{
		{"UnaryCall", "", codes.Unauthenticated, "missing_token", 401},
		{"UnaryCall", "Bearer " + minted("a.bbbbbbbbbbbbbbbbbbbbbbbbb.c"), codes.Unauthenticated, "invalid_token", 401},
		{"UnaryCall", "Bearer " + p.token(t, claims{"exp": 1e9}), codes.Unauthenticated, "expired_token", 401},
		{"UnaryCall", "Bearer " + p.token(t, claims{"privileges": nil}), codes.PermissionDenied, "insufficient_privileges", 403},
		{"UnaryCall", "Bearer", codes.InvalidArgument, "bad_request", 400},
		{"UnaryCall", good, codes.Unavailable, "upstream_refused", 502},
		{"HalfDuplexCall", "", codes.Unavailable, "upstream_refused", 502},
		{"HalfDuplexCall", "", codes.ResourceExhausted, "rate_limited", 429},
		{"EmptyCall", "", codes.DeadlineExceeded, "upstream_timeout", 504},
		{"UnimplementedCall", "", codes.Unimplemented, "no_route", 404},
		{"CacheableUnaryCall", "", codes.Unimplemented, "method_not_allowed", 405},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if c.token != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", c.token)
		}
		var md metadata.MD
		err := conn.Invoke(ctx, "/grpc.testing.TestService/"+c.method, &pb.Empty{}, &pb.Empty{}, grpc.Trailer(&md))
		s := status.Convert(err)
		id := strings.Join(md.Get("x-request-id"), ",")
		if s.Code() != c.want || s.Message() == "" || strings.Join(md.Get("gatehouse-reason"), ",") != c.reason || id == "" {
			t.Errorf("%s: %v %v, want %s", c.reason, err, md, c.want)
			continue
		}
		if got := len(md.Get("www-authenticate")); (c.status == 401 || c.status == 403) != (got == 1) && c.reason != "bad_request" {
			t.Errorf("%s: %d challenges", c.reason, got)
		}
		if c.status == 429 && len(md.Get("retry-after")) != 1 {
			t.Errorf("%s: no retry-after: %v", c.reason, md)
		}
		logged := fmt.Sprintf(`"request_id":%q`, id)
		g.output.says(t, logged)
		for line := range strings.Lines(g.output.String()) {
			if strings.Contains(line, logged) && strings.Contains(line, `"msg":"request"`) && (!strings.Contains(line, fmt.Sprintf(`"status":%d,`, c.status)) || !strings.Contains(line, fmt.Sprintf(`"reason":%q`, c.reason))) {
				t.Errorf("%s is logged as %s", c.reason, line)
			}
		}
	}
	if m := g.metrics(t); !strings.Contains(m, `gatehouse_requests_total{reason="missing_token",route="call",status="401"} 1`) {
		t.Error("the metrics do not tell the refusal's own status")
	}
	// Whoever does not speak gRPC reads HTTP.
	g.do(t, "POST /grpc.testing.TestService/UnaryCall", "Content-Type: application/grpc", "Content-Length: 0").refused(t, http.StatusUnauthorized, "missing_token")
	for _, kind := range []string{"application/grpc-web", "application/grpcx", "application/json"} {
		resp := g.caller(t, "h2", nil).send(t, "POST", "/grpc.testing.TestService/UnaryCall", nil, "Content-Type: "+kind)
		if resp.StatusCode != http.StatusUnauthorized || resp.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s is refused with %d %v", kind, resp.StatusCode, resp.Header)
		}
	}
	for _, kind := range []string{"application/grpc+proto", "application/grpc;x=y", "Application/GRPC"} {
		resp := g.caller(t, "h2", nil).send(t, "POST", "/grpc.testing.TestService/UnaryCall", nil, "Content-Type: "+kind)
		if resp.StatusCode != http.StatusOK || resp.Header.Get("Grpc-Status") != "16" || resp.Header.Get("Content-Type") != "application/grpc" {
			t.Errorf("%s is refused with %d %v", kind, resp.StatusCode, resp.Header)
		}
	}
}
