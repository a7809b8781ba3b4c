// Package credentials is the contract of what is secret and of what leads there: connections and the machine that renews and ends
// them, the keys that seal them, and what a person has to do first.
package credentials

import "frontdesk.dev/frontdesk/internal/store/storetest/check"

// Cases are its promises.
var Cases = check.Cases{
	"every connection":              everyConnection,
	"connections":                   connections,
	"connections replaced":          connectionsReplaced,
	"connections raced":             connectionsRaced,
	"keys":                          keys,
	"names":                         names,
	"data keys rotated":             dataKeysRotated,
	"keys by the calendar":          keysByCalendar,
	"turns":                         turns,
	"keys wrapped anew":             keysWrappedAnew,
	"machine":                       machine,
	"machine raced":                 machineRaced,
	"machine stopped in the middle": machineStopped,
	"vault sampled":                 sampled,
	"machine marked":                machineMarked,
	"machine lost":                  machineLost,
	"machine overtaken":             machineOvertaken,
	"machine too late":              machineTooLate,
	"machine among siblings":        machineSiblings,
	"machine upkeep":                machineUpkeep,
	"machine after a restore":       machineRestored,
	"endings":                       endings,
	"ends of many":                  endsOfMany,
	"ends of accounts":              endsOfAccounts,
	"late steps":                    lateSteps,
	"retired raced":                 retiredRaced,
	"access dropped":                accessDropped,
	"messages":                      messages,
	"gone":                          gone,
	"use":                           use,
	"requests":                      requests,
	"requests raced":                requestsRaced,
	"flows":                         flows,
	"devices":                       devices,
	"grants":                        grants,
	"found servers":                 foundServers,
	"sightings":                     sightings,
}
