package signals

import "time"

// Short shortens every pause.
func (st *Stream) Short(d time.Duration) { st.short = d }
