package audit

import (
	"context"
	"slices"
)

// Rehash gives rows another writer, with the hashes that are right there.
func Rehash(rows []Row, writer string) []Row {
	l := slices.Clone(rows)
	var prev [32]byte
	for i := range l {
		l[i].Writer = writer
		prev = link(writer, l[i].Seq, prev, l[i].Record)
		l[i].Hash = slices.Clone(prev[:])
	}
	return l
}

// Round signs now.
func (k *Checkpoints) Round(ctx context.Context) error {
	if k.moved == nil {
		k.moved, k.named = map[string]Head{}, map[string]Head{}
	}
	return k.round(ctx, k.last.Number == 0)
}

// Sweep does now what is done each few seconds.
func (l *Log) Sweep(ctx context.Context) error { return l.sweepOnce(ctx) }
