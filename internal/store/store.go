// Package store implements in SQL what the rooms declare, on SQLite and on PostgreSQL.
//
// One file a room, one statement text for both dialects; every statement names its tenant first. Only cmd imports it.
// An attacker with the database reads names, scopes, times and the log; credentials in it are sealed (package vault).
package store
