#pragma once

#include <cstdint>
#include <memory>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "core/deadline.h"
#include "core/error.h"
#include "core/record.h"
#include "outbox/column_order.h"
#include "postgres/connection.h"
#include "postgres/pool.h"

namespace relay::outbox {

/// What the catalog says of an outbox.
struct OutboxInfo {
  std::string table;        ///< in the schema pgtrickle, not quoted
  std::string delta_table;  ///< the same; empty: it has no claim checks
  std::string sequence;     ///< to be used as regclass
  std::string oid;          ///< of the outbox table; of the application's where it was adopted
  std::string incarnation;
  bool events = false;  ///< payloads are an application's events, not deltas
  /// A table of an application, which the role may not read: functions of the database side do. Its
  /// rows are events, and the application may delete them.
  bool adopted = false;
  std::shared_ptr<const TableShape> shape;
  std::vector<Column> columns;  ///< of its table now, in the order of jsonb; empty: not known
  /// Whose code runs where its rows are read.
  postgres::Code code() const { return adopted ? postgres::Code::users : postgres::Code::ours; }
  /// A condition in SQL that each statement which reads rows must ask: an error where the name that
  /// the outbox was found by means another relation now. Empty: it was named itself.
  std::string name_holds;
};

/// Finds the outbox that a pipeline of a group reads, by any name that a user may give it: the one
/// that its position stands on, if it has one. Misconfigured: there is none, the name means another
/// relation now, or the database side is not installed.
Result<OutboxInfo> resolve_outbox(postgres::Connection& connection, const std::string& name,
                                  const std::string& group, const std::string& pipeline,
                                  Deadline deadline, std::stop_token stop);

/// The columns that a relation has now, in the order of jsonb; none where it is gone.
Result<std::vector<Column>> read_columns(postgres::Connection& connection, const std::string& oid,
                                         Deadline deadline, std::stop_token stop);

/// What reading without skipping stands on: not a standby; ids drawn one by one, by inserts only.
Result<void> check_outbox(postgres::Connection& connection, const OutboxInfo& outbox,
                          Deadline deadline, std::stop_token stop);

/// The same error of reading the pipeline's outbox; where its table was dropped, or the role may
/// not read it, that is said, with the statement that mends it.
Error explain_refusal(postgres::Connection& connection, const std::string& name,
                      const std::string& group, const std::string& pipeline, Error error,
                      Deadline deadline, std::stop_token stop);

/// The call of a function of the database side that reads an adopted outbox, with what follows its
/// first argument.
std::string adopted_call(const OutboxInfo& outbox, std::string_view function,
                         std::string_view arguments);

/// pgtrickle."name"
std::string qualified(const std::string& table);

}  // namespace relay::outbox
