#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "postgres/pgoutput.h"

/// Messages of the log as pgoutput sends them.
namespace relay::stream::changes {

namespace pgoutput = postgres::pgoutput;

inline constexpr std::string_view kId = "0123456789abcdef";

inline pgoutput::Relation table(std::uint32_t oid, std::string schema, std::string name,
                                const std::vector<std::string>& columns = {
                                    "id", "payload", "metadata", "created_at", "xid", "seq"}) {
  pgoutput::Relation relation;
  relation.oid = oid;
  relation.schema = std::move(schema);
  relation.name = std::move(name);
  for (const std::string& column : columns) relation.columns.push_back({column});
  return relation;
}

inline const pgoutput::Relation& events() {
  static const pgoutput::Relation relation = table(17000, "pgstream", "events");
  return relation;
}

inline std::string big_endian(std::uint64_t value) {
  std::string bytes;
  for (int shift = 56; shift >= 0; shift -= 8) bytes += static_cast<char>(value >> shift);
  return bytes;
}

/// An insert whose payload is `seq`, as a number.
class Inserted {
 public:
  Inserted(std::uint64_t xid, std::int64_t seq, const pgoutput::Relation& relation = events())
      : relation_(relation),
        payload_('\1' + std::to_string(seq)),
        number_(big_endian(static_cast<std::uint64_t>(seq))),
        xid_(big_endian(xid)) {
    constexpr auto kBinary = pgoutput::Value::Kind::binary;
    row_ = {{kBinary, kId},     {kBinary, payload_}, {},
            {kBinary, number_}, {kBinary, xid_},     {kBinary, number_}};
  }
  Inserted(const Inserted&) = delete;
  Inserted& operator=(const Inserted&) = delete;

  std::vector<pgoutput::Value>& row() { return row_; }
  pgoutput::Message message() const { return pgoutput::Insert{&relation_, row_}; }

 private:
  const pgoutput::Relation& relation_;
  std::string payload_;
  std::string number_;
  std::string xid_;
  std::vector<pgoutput::Value> row_;
};

}  // namespace relay::stream::changes
