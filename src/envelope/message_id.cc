#include "envelope/message_id.h"

#include <fmt/format.h>

#include <array>
#include <cstddef>
#include <variant>

#include "core/snapshot_mode.h"

namespace relay::envelope {
namespace {

constexpr std::string_view kHexDigits = "0123456789abcdef";

// FNV-1a with a mixing step at the end. Implemented here because ids must never change between
// versions.
class Hash {
 public:
  void add(std::string_view bytes) {
    for (const char c : bytes) step(static_cast<unsigned char>(c));
  }
  void add(std::int64_t number) { step(static_cast<std::uint64_t>(number)); }
  void step(std::uint64_t word) { value_ = (value_ ^ word) * 0x100000001B3u; }
  std::uint64_t value() const {
    const std::uint64_t mixed = (value_ ^ (value_ >> 33)) * 0xFF51AFD7ED558CCDu;
    return mixed ^ (mixed >> 33);
  }

 private:
  std::uint64_t value_ = 0xCBF29CE484222325u;
};

template <int kDigits>
void append_hex(std::string& out, std::uint64_t value) {
  std::array<char, kDigits> digits;
  for (int i = kDigits - 1; i >= 0; --i) {
    digits[static_cast<std::size_t>(i)] = kHexDigits[value & 0xF];
    value >>= 4;
  }
  out.append(digits.data(), digits.size());
}

void append_number(std::string& out, std::int64_t number) {
  const fmt::format_int text(number);
  out.append(text.data(), text.size());
}

// The digits that distinguish this row from another one with the same number after a failover.
void append_incarnation(std::string& out, const Record& record) {
  if (record.pgt_id.size() >= 8) {
    out.append(record.pgt_id.substr(0, 8));
    return;
  }
  Hash hash;
  hash.add(record.pgt_id.empty() ? record.mark : record.pgt_id);
  append_hex<8>(out, record.pgt_id.empty() && record.mark.empty() ? 0 : hash.value());
}

}  // namespace

void append_message_id(std::string& out, std::string_view prefix, const Record& record, char mode,
                       std::string_view subject, OrdinalRange rows) {
  if (!prefix.empty()) {
    out.append(prefix);
    out.push_back(':');
  }
  const auto* const delta = std::get_if<Delta>(&record.content);
  if (delta != nullptr && is_snapshot(*delta)) out.push_back('s');
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
  append_hex<4>(out, hash.value());
}

}  // namespace relay::envelope
