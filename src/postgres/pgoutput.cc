#include "postgres/pgoutput.h"

#include <fmt/core.h>

#include <optional>
#include <utility>

#include "postgres/byte_reader.h"

namespace relay::postgres::pgoutput {

namespace {

constexpr std::uint8_t kTransactional = 1;
constexpr std::uint8_t kKeyColumn = 1;
constexpr std::uint8_t kCascade = 1;
constexpr std::uint8_t kRestartIdentity = 2;

}  // namespace

/// Parses one message. Sets `problem_` where the bytes do not say what the protocol allows.
class Decoder::Parser {
 public:
  Parser(Decoder& decoder, std::string_view bytes) : decoder_(decoder), in_(bytes) {}

  Result<Message> parse() {
    const char type = static_cast<char>(in_.byte());
    std::optional<Message> message = body(type);
    if (!message) return refuse(fmt::format("a message of unknown type {:#04x}", type));
    if (!problem_.empty()) return refuse(std::move(problem_));
    if (!in_.ok()) return refuse(fmt::format("a message '{}' that ends too early", type));
    if (!in_.at_end()) return refuse(fmt::format("a message '{}' that is too long", type));
    return std::move(*message);
  }

 private:
  Decoder& decoder_;
  ByteReader in_;
  std::string problem_;

  static Result<Message> refuse(std::string what) {
    return fail(misconfigured("pgoutput", "PostgreSQL's replication stream has " + what,
                              "use a server of PostgreSQL's own pgoutput; if it is one, report "
                              "this with the server's version"));
  }

  std::optional<Message> body(char type) {
    switch (type) {
      case 'B':
        return begin();
      case 'C':
        return commit();
      case 'O':
        return origin();
      case 'R':
        return relation();
      case 'Y':
        return named_type();
      case 'I':
        return insert();
      case 'U':
        return update();
      case 'D':
        return removal();
      case 'T':
        return truncate();
      case 'M':
        return emitted();
      default:
        return std::nullopt;
    }
  }

  // Members of an aggregate in braces are evaluated in their order.

  Lsn lsn() { return Lsn{in_.int64()}; }
  /// Any bits: a time that the clock cannot hold wraps around.
  Time time() {
    const auto since = static_cast<std::uint64_t>(kEpoch.time_since_epoch().count());
    return Time{std::chrono::microseconds{static_cast<std::int64_t>(since + in_.int64())}};
  }

  Begin begin() { return Begin{lsn(), time(), in_.int32()}; }

  Commit commit() {
    in_.byte();  // flags: none is defined
    return Commit{lsn(), lsn(), time()};
  }

  Origin origin() { return Origin{lsn(), in_.text()}; }

  Type named_type() { return Type{in_.int32(), in_.text(), in_.text()}; }

  Emitted emitted() {
    const bool transactional = (in_.byte() & kTransactional) != 0;
    const Lsn at = lsn();
    const std::string_view prefix = in_.text();
    return Emitted{transactional, at, prefix, in_.bytes(in_.int32())};
  }

  const Relation* relation() {
    Relation read;
    read.oid = in_.int32();
    // An empty name stands for pg_catalog.
    read.schema = in_.text();
    if (read.schema.empty()) read.schema = "pg_catalog";
    read.name = in_.text();
    read.identity = static_cast<char>(in_.byte());
    for (std::uint16_t left = in_.int16(); left > 0 && in_.ok(); --left) {
      Relation::Column& column = read.columns.emplace_back();
      column.key = (in_.byte() & kKeyColumn) != 0;
      column.name = in_.text();
      column.type = in_.int32();
      column.modifier = static_cast<std::int32_t>(in_.int32());
    }
    // What ended early must not replace what is known.
    if (!in_.ok() || !in_.at_end()) return nullptr;
    Relation& known = decoder_.relations_[read.oid];
    known = std::move(read);
    return &known;
  }

  const Relation* known_relation() {
    const std::uint32_t oid = in_.int32();
    const auto found = decoder_.relations_.find(oid);
    if (found != decoder_.relations_.end()) return &found->second;
    if (in_.ok()) note(fmt::format("a change of relation {}, which it did not describe", oid));
    return nullptr;
  }

  Tuple tuple(const Relation* relation, std::vector<Value>& values) {
    values.clear();
    const std::size_t count = in_.int16();
    if (relation == nullptr || !in_.ok()) return {};
    if (count != relation->columns.size()) {
      note(fmt::format("a row of {} values for {}.{}, which has {} columns", count,
                       relation->schema, relation->name, relation->columns.size()));
      return {};
    }
    for (std::size_t i = 0; i < count && in_.ok(); ++i) values.push_back(value());
    return values;
  }

  Value value() {
    const auto kind = static_cast<Value::Kind>(in_.byte());
    switch (kind) {
      case Value::Kind::null:
      case Value::Kind::unchanged:
        return Value{kind, {}};
      case Value::Kind::text:
      case Value::Kind::binary:
        return Value{kind, in_.bytes(in_.int32())};
    }
    if (in_.ok())
      note(fmt::format("a value of unknown kind {:#04x}", static_cast<unsigned char>(kind)));
    return {};
  }

  Insert insert() {
    const Relation* relation = known_relation();
    expect('N', static_cast<char>(in_.byte()));
    return Insert{relation, tuple(relation, decoder_.row_)};
  }

  Update update() {
    Update read{known_relation(), Before::none, {}, {}};
    char part = static_cast<char>(in_.byte());
    if (part == 'K' || part == 'O') {
      read.before = part == 'K' ? Before::key : Before::row;
      read.old_row = tuple(read.relation, decoder_.old_row_);
      part = static_cast<char>(in_.byte());
    }
    expect('N', part);
    read.row = tuple(read.relation, decoder_.row_);
    return read;
  }

  Delete removal() {
    Delete read{known_relation(), Before::key, {}};
    const char part = static_cast<char>(in_.byte());
    if (part == 'O') read.before = Before::row;
    if (part != 'O') expect('K', part);
    read.old_row = tuple(read.relation, decoder_.old_row_);
    return read;
  }

  Truncate truncate() {
    decoder_.truncated_.clear();
    std::uint32_t left = in_.int32();
    const std::uint8_t options = in_.byte();
    for (; left > 0 && in_.ok() && problem_.empty(); --left) {
      decoder_.truncated_.push_back(known_relation());
    }
    return Truncate{decoder_.truncated_, (options & kCascade) != 0,
                    (options & kRestartIdentity) != 0};
  }

  void expect(char wanted, char found) {
    if (wanted == found || !in_.ok()) return;
    note(fmt::format("a part {:#04x} of a row where '{}' was expected", found, wanted));
  }

  void note(std::string problem) {
    if (problem_.empty()) problem_ = std::move(problem);
  }
};

Result<Message> Decoder::decode(std::string_view bytes) {
  return Parser(*this, bytes).parse();
}

}  // namespace relay::postgres::pgoutput
