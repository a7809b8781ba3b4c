package egress_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"frontdesk.dev/frontdesk/internal/kit/outbound"
)

// parrot is a service of gRPC that says back what it was sent, and with which credential.
var parrot = &grpc.ServiceDesc{ServiceName: "test.Parrot", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{{StreamName: "Say", ServerStreams: true, ClientStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
	md, _ := metadata.FromIncomingContext(s.Context())
	with := strings.Join(md["authorization"], ",")
	if err := s.SendHeader(metadata.Pairs("x-with", with)); err != nil {
		return err
	}
	for {
		in := &wrapperspb.StringValue{}
		err := s.RecvMsg(in)
		if errors.Is(err, io.EOF) {
			s.SetTrailer(metadata.Pairs("x-with", with, "x-with-bin", with))
			return status.Error(codes.DataLoss, "lost: "+with+" ünd %")
		}
		if err != nil {
			return err
		}
		if in.Value == "split" { // the credential over the border of two messages, as far as protobuf lets it
			for _, part := range []string{with[:20], with[20:]} {
				if err := s.SendMsg(wrapperspb.String(part)); err != nil {
					return err
				}
			}
			continue
		}
		if err := s.SendMsg(wrapperspb.String(in.Value + " " + with)); err != nil {
			return err
		}
	}
}}}}

// TestGRPC is a client and a server of grpc-go with egress between them: on TLS and without, compressed and not, in both directions at once.
func TestGRPC(t *testing.T) {
	s := newStage(t, func(s *stage) {
		plain := grpc.NewServer()
		plain.RegisterService(parrot, nil)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = plain.Serve(l) }() // ends with Stop
		t.Cleanup(plain.Stop)
		s.ups["second"] = upstreamAt(t, "second", "http://"+l.Addr().String())
		behind := grpc.NewServer()
		behind.RegisterService(parrot, nil)
		s.secure.mux.Handle("/test.Parrot/", behind)
		out, err := outbound.New(outbound.Config{Named: []string{s.secure.url, "h2c://" + l.Addr().String()}, CAFile: s.vendorFile})
		if err != nil {
			t.Fatal(err)
		}
		s.door.out = out.Named()
	})
	plain := s.ups["second"].Origins[0].Host
	tunnel := grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.addr)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", addr, addr)
		answer := make([]byte, len("HTTP/1.1 200 Connection established\r\n\r\n"))
		if _, err := io.ReadFull(c, answer); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 200 ") {
			return nil, fmt.Errorf("%q %w", answer, err)
		}
		return c, nil
	})
	secure := credentials.NewTLS(&tls.Config{RootCAs: s.roots})
	stars := "Bearer " + strings.Repeat("*", len(credential))
	for name, c := range map[string]struct {
		target string
		creds  credentials.TransportCredentials
		call   []grpc.CallOption
	}{
		"TLS":                {s.secure.host, secure, nil},
		"TLS, compressed":    {s.secure.host, secure, []grpc.CallOption{grpc.UseCompressor(gzip.Name)}},
		"no TLS":             {plain, insecure.NewCredentials(), nil},
		"no TLS, compressed": {plain, insecure.NewCredentials(), []grpc.CallOption{grpc.UseCompressor(gzip.Name)}},
	} {
		ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+keycard), 20*time.Second)
		conn, err := grpc.NewClient("passthrough:///"+c.target, tunnel, grpc.WithTransportCredentials(c.creds))
		if err != nil {
			t.Fatal(err)
		}
		say, err := conn.NewStream(ctx, &parrot.Streams[0], "/test.Parrot/Say", c.call...)
		if err != nil {
			t.Fatal(name, err)
		}
		h, err := say.Header()
		if err != nil || fmt.Sprint(h["x-with"]) != "["+stars+"]" {
			t.Errorf("%s: %v %v", name, h, err)
		}
		for i := range 3 { // each answer before the next question
			word := fmt.Sprint("word ", i, strings.Repeat(".", i*50_000))
			got := &wrapperspb.StringValue{}
			if err := say.SendMsg(wrapperspb.String(word)); err != nil {
				t.Fatal(name, err)
			}
			if err := say.RecvMsg(got); err != nil || got.Value != word+" "+stars {
				t.Fatalf("%s: %.100q %v", name, got.Value, err)
			}
		}
		_, _ = say.SendMsg(wrapperspb.String("split")), say.CloseSend()
		first, second := &wrapperspb.StringValue{}, &wrapperspb.StringValue{}
		if _, err := say.RecvMsg(first), say.RecvMsg(second); err != nil || len(first.Value) != 20 || len(first.Value+second.Value) != len(stars) {
			t.Errorf("%s: %q %q %v", name, first.Value, second.Value, err)
		}
		err = say.RecvMsg(first)
		if status.Code(err) != codes.DataLoss || status.Convert(err).Message() != "lost: "+stars+" ünd %" {
			t.Errorf("%s: %v", name, err)
		}
		if tr := say.Trailer(); fmt.Sprint(tr["x-with"]) != "["+stars+"]" || strings.Contains(fmt.Sprint(tr), credential) {
			t.Errorf("%s: %v", name, tr)
		}
		cancel()
		_ = conn.Close()
	}
	// What is refused, gRPC's clients understand: without a keycard nothing is sent.
	conn, err := grpc.NewClient("passthrough:///"+s.secure.host, tunnel, grpc.WithTransportCredentials(secure))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	before := len(s.secure.seen())
	err = conn.Invoke(t.Context(), "/test.Parrot/Say", wrapperspb.String("hello"), &wrapperspb.StringValue{})
	if status.Code(err) != codes.Unauthenticated || len(s.secure.seen()) != before {
		t.Errorf("without a keycard: %v, %d requests", err, len(s.secure.seen())-before)
	}
	if got := do(t, s.through(), request(t, http.MethodGet, "http://"+plain+"/", nil, "Authorization", "Bearer "+keycard)); got.StatusCode == http.StatusOK || !strings.Contains(got.Header.Get("Content-Type"), "grpc") && got.StatusCode < 400 {
		t.Errorf("a request of HTTP/1.1 to it is passed on as one of HTTP/2: %s %v", got.Status, got.Header)
	}
}
