#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/record.h"

namespace relay::envelope {

/// Which rows of a record a message carries, by their numbers in the record (Delta::first_ordinal).
struct OrdinalRange {
  std::int64_t first = 0;
  std::int64_t last = 0;
};

/// Appends `<prefix>:<outbox_id>-<8 hex digits>:<n>.<cut>`: the hex digits are the first ones of
/// the row's pgt_id, `n` is the first row's number, `cut` is 4 hex digits of a hash over mode,
/// subject and rows. The messages of one record carry different rows, so `n` alone tells them
/// apart; `cut` tells apart what two configurations make of one record. An empty prefix leaves out
/// its colon. Before the id of a page of a snapshot, which is no outbox row, is an `s`. A record
/// without outbox id or pgt_id is named by its position and mark instead.
void append_message_id(std::string& out, std::string_view prefix, const Record& record, char mode,
                       std::string_view subject, OrdinalRange rows);

}  // namespace relay::envelope
