package main

// apiRow adds one API call to the tool call: through egress, with keycard and credential, beside a bare proxy on the way out.
func apiRow(b *bench) error {
	_, err := b.raceTool("fetch", map[int]int{1: b.times(1, 5), 32: b.times(3, 7), 256: b.times(1, 5)})
	return err
}
