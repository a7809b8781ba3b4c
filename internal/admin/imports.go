package admin

import (
	"context"
	"errors"
	"io"
	"net/http"

	"frontdesk.dev/frontdesk/internal/connect/intake"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// Intake takes in connections that people made elsewhere (intake.Intake). The file is full of credentials: it is handed on
// unread, and nothing of it is in the report.
type Intake interface {
	Take(ctx context.Context, o intake.Order, file []byte) (intake.Report, error)
}

// maxImport is how large one file may be: some fifty thousand connections.
const maxImport = 64 << 20

func (a *API) imports(r *http.Request) (any, error) {
	q := r.URL.Query()
	on := func(name string) bool { return q.Get(name) == "true" }
	file, err := io.ReadAll(r.Body)
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, fault.New(fault.Invalid, "the file is larger than 64 MiB; cut it into several", nil)
	}
	if err != nil {
		return nil, err
	}
	defer clear(file)
	return a.Intake.Take(r.Context(), intake.Order{Tenant: tenant(r), Dry: on("dry_run"), Partial: on("partial"), NewPeople: on("new_people"), Replace: on("replace")}, file)
}
