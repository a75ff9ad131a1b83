#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <variant>
#include <vector>

#include "core/error.h"
#include "postgres/clock.h"
#include "postgres/lsn.h"

/// What the output plugin pgoutput sends, version 1 of its protocol, without streaming of
/// transactions that are under way and without two-phase commit: transactions come whole, in the
/// order of their commits (PostgreSQL's manual: "Logical Replication Message Formats").
namespace relay::postgres::pgoutput {

struct Begin {
  Lsn final_lsn;  ///< where the transaction's commit record is
  Time committed_at;
  std::uint32_t xid = 0;
};

struct Commit {
  Lsn lsn;      ///< that of `Begin`
  Lsn end_lsn;  ///< what to confirm when the transaction is settled
  Time committed_at;
};

/// The transaction came here from another server by replication.
struct Origin {
  Lsn lsn;
  std::string_view name;
};

/// A table as it was when the changes that follow were made. Comes before a table's first change in
/// a session, and again after each change of the table's definition.
struct Relation {
  struct Column {
    std::string name;
    std::uint32_t type = 0;  ///< oid
    std::int32_t modifier = -1;
    bool key = false;  ///< part of the replica identity
  };
  std::uint32_t oid = 0;
  std::string schema;
  std::string name;
  char identity = 'd';  ///< as in pg_class.relreplident
  std::vector<Column> columns;
};

/// The name of a type that is not built in.
struct Type {
  std::uint32_t oid = 0;
  std::string_view schema;
  std::string_view name;
};

struct Value {
  enum class Kind : char {
    null = 'n',
    unchanged = 'u',  ///< a TOASTed value that the update did not touch: it is not sent
    text = 't',
    binary = 'b',
  };
  Kind kind = Kind::null;
  std::string_view data;  ///< of `text` and `binary`
};

/// One value for each column of the relation.
using Tuple = std::span<const Value>;

struct Insert {
  const Relation* relation = nullptr;
  Tuple row;
};

/// What is known of a row before its change.
enum class Before {
  none,
  key,  ///< only columns of the replica identity have values; the key changed, or the row is gone
  row,  ///< REPLICA IDENTITY FULL
};

struct Update {
  const Relation* relation = nullptr;
  Before before = Before::none;
  Tuple old_row;
  Tuple row;
};

struct Delete {
  const Relation* relation = nullptr;
  Before before = Before::key;
  Tuple old_row;
};

struct Truncate {
  std::span<const Relation* const> relations;
  bool cascade = false;
  bool restart_identity = false;
};

/// pg_logical_emit_message. One that is not transactional comes at once, between transactions or
/// within another one.
struct Emitted {
  bool transactional = false;
  Lsn lsn;
  std::string_view prefix;
  std::string_view content;
};

using Message = std::variant<Begin, Commit, Origin, const Relation*, Type, Insert, Update, Delete,
                             Truncate, Emitted>;

/// Decodes the messages of one replication session, in their order: changes refer to relations that
/// were sent before. Pure. One thread at a time.
class Decoder {
 public:
  /// Views of the message are valid until the next call, and as long as `bytes`; a relation until
  /// it is sent again. A message that does not follow the protocol is an error, after which the
  /// session cannot go on.
  Result<Message> decode(std::string_view bytes);

 private:
  std::unordered_map<std::uint32_t, Relation> relations_;
  std::vector<Value> old_row_;
  std::vector<Value> row_;
  std::vector<const Relation*> truncated_;

  class Parser;
};

}  // namespace relay::postgres::pgoutput
