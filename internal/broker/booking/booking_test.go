package booking_test

import (
	"slices"
	"testing"

	"frontdesk.dev/frontdesk/internal/broker/booking"
)

// TestHintsOfACall: each is told once and not too many are; a success afterwards says that the failure was got over.
func TestHintsOfACall(t *testing.T) {
	var b booking.Book
	e := &booking.Entry{Call: "w.1"}
	b.Add(e)
	b.Tell(booking.Booked{Call: "w.2"}, "of nobody's call")
	b.Succeeded("w.1")
	for _, h := range []string{"a", "b", "a", "c", "d"} {
		b.Tell(booking.Booked{Call: "w.1"}, h)
	}
	if r := e.Report(); !slices.Equal(r.Hints, []string{"a", "b", "c"}) || !r.Failing || r.Successes != 1 {
		t.Errorf("%+v", r)
	}
	b.Succeeded("w.1")
	if r := e.Report(); r.Failing || len(r.Hints) != 3 {
		t.Errorf("after a success: %+v", r)
	}
}
