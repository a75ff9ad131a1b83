#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace relay::stream {

/// A transaction, as type xid8 numbers it.
using Xid = std::uint64_t;

/// Empty if `text` is not a number.
std::optional<Xid> parse_xid(std::string_view text);

/// Which transactions a statement sees: type pg_snapshot.
class Snapshot {
 public:
  /// "xmin:xmax:xip,xip". Empty if `text` is not written so.
  static std::optional<Snapshot> parse(std::string_view text);

  /// Of a transaction that has committed: whether it had done so by then.
  bool sees(Xid xid) const;

 private:
  Xid end_ = 0;                 ///< the first that had not begun
  std::vector<Xid> under_way_;  ///< in order
};

}  // namespace relay::stream
