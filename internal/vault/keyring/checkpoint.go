package keyring

import (
	"context"
	"crypto/rand"
	"time"

	"golang.org/x/mod/sumdb/note"

	"frontdesk.dev/frontdesk/internal/audit"
)

const purposeCheckpoint = "checkpoint"

// CheckpointKeys are the Ed25519 keys that sign the audit log's checkpoints; the first one is made when it is asked for. They
// carry the name of the log, for good: a deployment that moves to another address keeps it. Safe for concurrent use.
type CheckpointKeys struct {
	Signer *Signer
	Log    string // the log's name where there is no key yet, as desk.example.com/audit
}

var _ audit.CheckpointKeys = CheckpointKeys{}

// CheckpointKeys implements audit.CheckpointKeys.
func (k CheckpointKeys) CheckpointKeys(ctx context.Context) ([]audit.CheckpointKey, error) {
	ring := k.Signer.ring()
	if _, err := ring.Current(ctx, "", purposeCheckpoint, func(string) (plain, public []byte, err error) { return newNoteKey(k.Log) }); err != nil {
		return nil, err
	}
	all, err := ring.Open(ctx, "", purposeCheckpoint)
	if err != nil {
		return nil, err
	}
	var l []audit.CheckpointKey
	for _, o := range all.Keys {
		s, err := note.NewSigner(string(o.Secret))
		clear(o.Secret)
		if err != nil {
			return nil, err
		}
		l = append(l, audit.CheckpointKey{Signer: s, Public: string(o.Public)})
	}
	return l, nil
}

// RotateAged makes a new key where the newest has been there for so long. The next checkpoint announces it, signed by the old one,
// and it signs from then on.
func (k CheckpointKeys) RotateAged(ctx context.Context, age time.Duration) (bool, error) {
	return k.Signer.succeed(ctx, ring{"", purposeCheckpoint}, age, 0, func(string) (plain, public []byte, err error) { return newNoteKey(k.name(ctx)) })
}

// name is that of the log: what its first key says, for good.
func (k CheckpointKeys) name(ctx context.Context) string {
	if all, err := CheckpointPublic(ctx, k.Signer.Keys); err == nil && len(all) > 0 {
		if v, err := note.NewVerifier(all[0]); err == nil {
			return v.Name()
		}
	}
	return k.Log
}

// CheckpointPublic are the verifier keys as the database holds them, oldest first. Only one that was pinned proves anything.
func CheckpointPublic(ctx context.Context, keys Store) ([]string, error) {
	l, err := keys.Keys(ctx, "", purposeCheckpoint)
	var public []string
	for _, k := range l {
		public = append(public, string(k.Public))
	}
	return public, err
}

func newNoteKey(name string) (plain, public []byte, err error) {
	secret, verifier, err := note.GenerateKey(rand.Reader, name)
	return []byte(secret), []byte(verifier), err
}
