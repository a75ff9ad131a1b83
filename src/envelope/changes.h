#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "envelope/json_reader.h"

namespace relay::envelope {

enum class Op : std::uint8_t { insert, update, remove, refresh };
std::string_view to_string(Op op);

inline constexpr std::uint32_t kNoRow = std::numeric_limits<std::uint32_t>::max();

/// One change of one row, with the deleted and the inserted row that it consists of. Rows are
/// indexes into the record's Rows.
struct Change {
  Op op = Op::insert;
  std::uint32_t old_row = kNoRow;
  std::uint32_t new_row = kNoRow;
  std::uint32_t route = 0;  ///< number of its route in RoutedChanges
  /// The half of an update whose old and new row go to different places. The deleting half must
  /// arrive first.
  bool moved = false;

  std::uint32_t first_row() const { return old_row < new_row ? old_row : new_row; }
  std::uint32_t last_row() const { return new_row != kNoRow ? new_row : old_row; }
  std::int64_t rows() const { return (old_row != kNoRow ? 1 : 0) + (new_row != kNoRow ? 1 : 0); }
  /// The row that a filter or a template asks: the new one, the old one of a delete.
  std::uint32_t row() const { return last_row(); }
  /// An update with both of its rows.
  bool is_pair() const { return op == Op::update && old_row != kNoRow && new_row != kNoRow; }
};

/// Finds the updates in a delta: a deleted and an inserted row of one key.
class KeyMatcher {
 public:
  /// `rows` holds the deleted rows, then the inserted ones. Fills `partner`: for each row the other
  /// one of its update, or kNoRow. Keys are compared as jsonb compares them (1.0 is 1). A key that
  /// occurs twice on one side, or that a row lacks, identifies nothing: its rows stay alone.
  void match(const Rows& rows, std::size_t deleted, std::span<const std::string> key_columns,
             std::vector<std::uint32_t>& partner);

 private:
  struct Entry {
    std::uint64_t hash;
    std::size_t begin;  // of the key's canonical bytes in `keys_`
    std::size_t size;
    std::uint32_t row;
  };
  std::string_view key(const Entry& entry) const {
    return {keys_.data() + entry.begin, entry.size};
  }
  void add(const Rows& rows, std::uint32_t row, std::span<const std::string> key_columns);

  std::string keys_;
  std::vector<Entry> entries_;
};

/// One message's share of a record's changes.
struct Piece {
  std::size_t begin = 0;  ///< range in the order of `changes(piece)`
  std::size_t end = 0;
  int part = 0;  ///< 0: not cut; else 1, 2, ...
  bool final = true;
};

/// Sorts changes into messages: one for each route, cut if it would hold more than `max_rows` rows
/// (the two rows of an update stay together, even if that exceeds the limit). Nothing is lost and
/// nothing is doubled. The order is that of the changes, except that the deleting half of a moved
/// row is always sent before the inserting half; a route that holds both kinds of halves gets a
/// message of its own for the deleting ones.
class DeltaSplitter {
 public:
  void split(std::span<const Change> changes, std::size_t routes, std::int64_t max_rows);

  std::span<const Piece> pieces() const { return pieces_; }
  /// Indexes of the changes of a piece, in order.
  std::span<const std::uint32_t> changes(const Piece& piece) const {
    return std::span(order_).subspan(piece.begin, piece.end - piece.begin);
  }

 private:
  void sort_into_buckets(std::span<const Change> changes, std::size_t routes);
  void cut(std::span<const Change> changes, std::size_t begin, std::size_t end,
           std::int64_t max_rows);

  std::vector<std::uint32_t> order_;
  std::vector<std::size_t> bucket_ends_;
  std::vector<Piece> pieces_;
  std::vector<std::uint8_t> halves_;         // of a route: which kinds of moved halves it holds
  std::vector<std::uint32_t> bucket_of_;     // of a change
  std::vector<std::uint32_t> bucket_names_;  // of a route, its early and its main bucket
};

}  // namespace relay::envelope
