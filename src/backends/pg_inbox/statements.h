#pragma once

#include <string>

#include "backends/pg_inbox/target.h"

namespace relay::pg_inbox {

/// Writes messages: an array of values for each column of the target, and a row with the id for
/// each message that was new. What a column would cut or round is refused, except for the digits
/// of numbers and times.
std::string insert_statement(const Target& target);

/// What is stored under the ids of messages: an array of values for each of `target.compared()`,
/// and the table's name. A row a message, in their order: its id as the column writes it; whether
/// there is a row with it; whether one of these has the same event type, key and payload; whether a
/// BEFORE trigger may have changed what is stored; and whether row security may hide rows from us.
std::string look_statement(const Target& target);

}  // namespace relay::pg_inbox
