package secret_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"frontdesk.dev/frontdesk/internal/kit/secret"
)

func TestNothingPrintsASecret(t *testing.T) {
	const canary = "canary-7c1f"
	s := secret.New(canary)
	type nest struct {
		T secret.Text
		P *secret.Text
	}
	v := nest{s, &s}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%p", "%T"} {
		fmt.Fprintf(&out, verb+verb+verb, s, v, &v)
	}
	j, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	x, err := xml.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(j)
	out.Write(x)
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "s", s, "v", v)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "s", s, "v", v)
	fmt.Fprint(&out, fmt.Errorf("wrapped %v %w", s, fmt.Errorf("%s", v)))
	if printed := out.String(); strings.Contains(printed, canary) || strings.Contains(printed, fmt.Sprintf("%x", canary)) {
		t.Errorf("the secret was printed: %s", printed)
	}
	if s.Expose() != canary {
		t.Error("Expose is the way out, and it is closed")
	}
}
