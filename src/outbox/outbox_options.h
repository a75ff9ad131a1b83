#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "connector/held_position.h"
#include "connector/settled_rows.h"
#include "postgres/pool.h"

namespace relay::outbox {

/// What an outbox source needs to be told.
struct OutboxOptions {
  std::string outbox;  ///< as the user names it: stream table, table, or application outbox
  /// A statement that makes the outbox where it is missing; empty: it is there, or that is an
  /// error.
  std::string before_open;
  std::string group;  ///< relay group: each group has its own positions
  std::string pipeline;
  std::string worker_id;
  std::string start = "earliest";
  std::int64_t max_record_bytes = 32 << 20;
  std::int64_t delta_max_rows = 1000;  ///< where a claim check is cut
  /// False: `open` takes no ownership and reads from `start`; `acknowledge` does nothing.
  bool owns = true;
  /// The relay's own database, where the operator accepts losses; null: it is the outbox's.
  postgres::Pool* control = nullptr;
  /// What the pipeline settled, for longer than this source lives; null: it is not remembered.
  std::shared_ptr<SettledRows> settled;
  /// Where the source says which position it owns; null: nothing asks.
  std::shared_ptr<HeldPosition> held;
};

}  // namespace relay::outbox
