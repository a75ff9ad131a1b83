#include "envelope/message_id.h"

#include <fmt/format.h>

#include <cstddef>

namespace relay::envelope {
namespace {

constexpr std::string_view kHexDigits = "0123456789abcdef";

// FNV-1a. Written out here because ids must stay the same from build to build for ever.
class Hash {
 public:
  void add(std::string_view bytes) {
    for (const char c : bytes) step(static_cast<unsigned char>(c));
  }
  void add(std::int64_t number) {
    const auto bits = static_cast<std::uint64_t>(number);
    for (int shift = 0; shift < 64; shift += 8) step(bits >> shift & 0xFF);
  }
  void step(std::uint64_t byte) { value_ = (value_ ^ byte) * 0x100000001B3u; }
  std::uint64_t value() const { return value_ ^ (value_ >> 32); }

 private:
  std::uint64_t value_ = 0xCBF29CE484222325u;
};

void append_hex(std::string& out, std::uint64_t value, int digits) {
  for (int shift = (digits - 1) * 4; shift >= 0; shift -= 4) {
    out.push_back(kHexDigits[value >> shift & 0xF]);
  }
}

void append_number(std::string& out, std::int64_t number) {
  const fmt::format_int text(number);
  out.append(text.data(), text.size());
}

// The digits that tell this row from another one that got the same number after a failover.
void append_incarnation(std::string& out, const Record& record) {
  if (record.pgt_id.size() >= 8) {
    out.append(record.pgt_id.substr(0, 8));
    return;
  }
  Hash hash;
  hash.add(record.pgt_id.empty() ? record.mark : record.pgt_id);
  append_hex(out, record.pgt_id.empty() && record.mark.empty() ? 0 : hash.value() & 0xFFFFFFFF, 8);
}

}  // namespace

void append_message_id(std::string& out, std::string_view prefix, const Record& record, char mode,
                       std::string_view subject, OrdinalRange rows) {
  if (!prefix.empty()) {
    out.append(prefix);
    out.push_back(':');
  }
  append_number(out, record.outbox_id != 0 ? record.outbox_id : record.id);
  out.push_back('-');
  append_incarnation(out, record);
  out.push_back(':');
  append_number(out, rows.first);
  out.push_back('.');
  Hash hash;
  hash.step(static_cast<unsigned char>(mode));
  hash.add(subject);
  hash.step(0);
  hash.add(rows.first);
  hash.add(rows.last);
  append_hex(out, (hash.value() ^ (hash.value() >> 16)) & 0xFFFF, 4);
}

}  // namespace relay::envelope
