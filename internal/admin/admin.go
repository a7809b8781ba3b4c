// Package admin is the JSON API that operators automate against, on a Unix socket that only they can open.
//
// Every command of `frontdesk` that looks into a running server speaks through it. It shows no credential: there is
// no call that exports one.
package admin
