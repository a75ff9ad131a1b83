#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "core/message.h"
#include "envelope/header_builder.h"
#include "envelope/json_reader.h"
#include "envelope/output.h"
#include "envelope/plan.h"
#include "envelope/refusals.h"

namespace relay::envelope {

/// Where a message goes, and the headers that go along with it.
struct Route {
  std::string_view subject;
  std::string_view key;
  std::span<const Header> headers;
  SharedError refused;  ///< set: messages of this route cannot be sent
};

/// What the templates render to, before it is kept in the batch: one text, and where its parts end.
struct RenderedRoute {
  std::string text;
  std::size_t subject_end = 0;
  std::size_t key_end = 0;
  std::vector<std::size_t> header_ends;
  SharedError refused;

  friend bool operator==(const RenderedRoute&, const RenderedRoute&) = default;
  std::string_view subject() const { return std::string_view(text).substr(0, subject_end); }
  std::string_view key() const {
    return std::string_view(text).substr(subject_end, key_end - subject_end);
  }
};

/// Renders the templates for subject, key and headers. One thread at a time.
class RouteRenderer {
 public:
  /// Everything given here outlives the object.
  RouteRenderer(const Plan& plan, JsonReader& reader, Refusals& refusals)
      : plan_(plan), reader_(reader), refusals_(refusals) {}

  /// Begins records of one table, then one of them. False: its headers cannot be read.
  void start(Output& output);
  bool begin(const Record& record);

  /// The route of a message that is about no single row: each column is NULL.
  Route of_record(std::string_view op, std::string_view key);
  /// The route of an event. `row` is its payload if that is an object; else each column is NULL.
  Route of_event(std::string_view type, std::string_view key, const RowView& row);
  /// Renders the route of a row. Refused: the row lacks a column, or the key that a template names.
  void render_row(RenderedRoute& into, std::string_view op, const Rows& rows, std::uint32_t row);
  /// A route for what cannot be sent.
  void refuse(RenderedRoute& into, SharedError why) const;
  /// The route, kept in the batch.
  Route keep(const RenderedRoute& rendered);

 private:
  void render_templates(RenderedRoute& into, std::string_view default_key, const RowView& row);
  bool read_key(const Rows& rows, std::uint32_t row);
  std::string_view key_object(const Rows& rows, std::uint32_t row);

  const Plan& plan_;
  JsonReader& reader_;
  Refusals& refusals_;
  Output* output_ = nullptr;
  HeaderBuilder headers_;
  Variables variables_;
  std::string outbox_id_;
  std::string key_;
  std::string key_object_;
  std::string_view constant_subject_;  // if all messages of a table have the same one
  RenderedRoute whole_;                // of a message that is about no single row
};

}  // namespace relay::envelope
