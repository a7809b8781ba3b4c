// Package records is the contract of what Frontdesk knows: people and whose access has ended, the log, what clients of MCP hold, and
// what goes to vendors.
package records

import "frontdesk.dev/frontdesk/internal/store/storetest/check"

// Cases are its promises.
var Cases = check.Cases{
	"users":                            users,
	"users raced":                      usersRaced,
	"epochs":                           epochs,
	"epochs in order":                  epochsInOrder,
	"watch":                            watch,
	"audit":                            auditAppend,
	"audit conflicts":                  auditConflicts,
	"audit one outcome":                auditOneOutcome,
	"audit for people":                 auditRows,
	"audit page by page":               auditPages,
	"audit verified":                   auditVerified,
	"audit from a position":            auditFrom,
	"checkpoints":                      checkpoints,
	"audit unfinished":                 auditUnfinished,
	"audit unfinished in a long chain": auditLongChain,
	"clients":                          clients,
	"consents":                         consents,
	"codes":                            codes,
	"families":                         families,
	"sessions":                         legacySessions,
	"tasks":                            tasks,
	"tickets":                          tickets,
	"allowances":                       allowances,
	"allowances raced":                 allowancesRaced,
	"words":                            words,
	"notes":                            notes,
}
