#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace relay::envelope {

/// What a piece of raw JSON is, by its first byte.
enum class JsonKind { null, boolean, number, text, structure };
JsonKind kind_of(std::string_view raw);

/// One member of an object, as it stands in the text.
struct Member {
  std::string_view name;   ///< without quotes, escapes undone
  std::string_view text;   ///< `"name": value`, byte for byte
  std::string_view value;  ///< raw JSON
};

/// Rows (JSON objects) cut out of a text: views, nothing is copied. Reused from record to record,
/// so that a busy pipeline allocates nothing here.
class Rows {
 public:
  void clear();
  std::size_t size() const { return rows_.size(); }
  std::string_view text(std::size_t row) const { return rows_[row].text; }
  std::span<const Member> members(std::size_t row) const {
    return {members_.data() + rows_[row].first_member, rows_[row].member_count};
  }
  /// The raw value of a column; null where the row has no such column. An empty view never occurs.
  const std::string_view* find(std::size_t row, std::string_view column) const;

 private:
  friend class JsonReader;
  struct Row {
    std::string_view text;
    std::size_t first_member = 0;
    std::size_t member_count = 0;
  };
  std::vector<Row> rows_;
  std::vector<Member> members_;
  std::deque<std::string> decoded_names_;  // of names that hold escapes; views need a fixed place
};

/// Looks into raw JSON without building a tree. Every text given to it must have Arena::kPadding
/// readable bytes behind it. Structure is checked, single numbers and literals are not. One thread
/// at a time.
class JsonReader {
 public:
  JsonReader();
  ~JsonReader();

  /// Appends the objects of an array to `rows`. False: it is not an array of objects; what was
  /// appended until then is taken back. An empty text is an empty array.
  bool slice_array(std::string_view json, Rows& rows);
  /// Appends one object. False: it is none.
  bool slice_object(std::string_view json, Rows& rows);

  /// Appends the text of a raw JSON string. False: broken escapes.
  bool append_text(std::string_view raw_string, std::string& out);

  /// What `path` leads to inside `json`: members by name, elements by number. Empty: nothing there.
  std::string_view find(std::string_view json, std::span<const std::string> path);

  /// Whether `json` is one well-formed JSON value, checked in full.
  bool valid(std::string_view json);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace relay::envelope
