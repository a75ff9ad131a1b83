#pragma once

#include <string>

#include "backends/pg_inbox/target.h"

namespace relay::pg_inbox {

/// The statement that writes messages: takes an array of values for each column of the target, and
/// returns the id of each message that was new. It refuses a value that the column would cut or
/// round, except for the digits of numbers and times.
std::string insert_statement(const Target& target);

/// The statement that looks up the ids of messages: takes an array of values for each of
/// `target.compared()`, and the table's name. Returns a row for each message, in order: its id as
/// the column writes it; whether there is a row with it; whether one of these has the same event
/// type, key and payload; whether a BEFORE trigger may have changed what is stored; and whether row
/// security may hide rows from the relay.
std::string look_statement(const Target& target);

}  // namespace relay::pg_inbox
