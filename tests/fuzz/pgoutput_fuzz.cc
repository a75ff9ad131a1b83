// A replication session: messages of pgoutput, each after its length in two bytes. What views point
// at is read, so that the sanitizers see a view that is none.

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <variant>

#include "postgres/byte_reader.h"
#include "postgres/pgoutput.h"

namespace {

using namespace relay::postgres;
using namespace relay::postgres::pgoutput;

std::size_t read_bytes(std::string_view bytes) {
  std::size_t sum = bytes.size();
  for (const char c : bytes) sum += static_cast<unsigned char>(c);
  return sum;
}

struct Reader {
  std::size_t operator()(const Begin& begin) const { return begin.xid; }
  std::size_t operator()(const Commit& commit) const { return commit.end_lsn.value; }
  std::size_t operator()(const Origin& origin) const { return read_bytes(origin.name); }
  std::size_t operator()(const Relation* relation) const { return relation->columns.size(); }
  std::size_t operator()(const Type& type) const {
    return read_bytes(type.schema) + read_bytes(type.name);
  }
  std::size_t operator()(const Insert& insert) const { return row(insert.relation, insert.row); }
  std::size_t operator()(const Update& update) const {
    const std::size_t old = update.before == Before::none ? update.old_row.size()
                                                          : row(update.relation, update.old_row);
    return old + row(update.relation, update.row);
  }
  std::size_t operator()(const Delete& removal) const {
    return row(removal.relation, removal.old_row);
  }
  std::size_t operator()(const Truncate& truncate) const {
    std::size_t sum = 0;
    for (const Relation* relation : truncate.relations) sum += relation->name.size();
    return sum;
  }
  std::size_t operator()(const Emitted& emitted) const {
    return read_bytes(emitted.prefix) + read_bytes(emitted.content);
  }

  static std::size_t row(const Relation* relation, Tuple values) {
    if (relation->columns.size() != values.size()) __builtin_trap();
    std::size_t sum = 0;
    for (const Value& value : values) sum += read_bytes(value.data);
    return sum;
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  ByteReader in({reinterpret_cast<const char*>(data), size});
  Decoder decoder;
  std::size_t sum = 0;
  while (!in.at_end()) {
    const std::size_t length = in.int16();
    const std::string_view bytes = in.bytes(std::min(length, in.rest().size()));
    const auto message = decoder.decode(bytes);
    if (message) sum += std::visit(Reader{}, *message);
  }
  return sum == SIZE_MAX ? -1 : 0;
}
