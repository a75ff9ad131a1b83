#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "core/message.h"
#include "core/record.h"
#include "envelope/format.h"
#include "envelope/format_headers.h"
#include "envelope/message_id.h"
#include "envelope/output.h"
#include "envelope/plan.h"
#include "envelope/route_renderer.h"

namespace relay::envelope {

/// Adds messages to a batch, with what all messages of their record have in common, their ids, and
/// the headers of the format. Texts that it returns are kept in the batch. One thread at a time.
class MessageWriter {
 public:
  explicit MessageWriter(const Plan& plan) : plan_(plan), format_headers_(plan) {}

  /// Begins records of one table, then one of them: the one that `output` has begun.
  void start(Output& output);
  void begin();

  /// What envelopes say about the record; the caller completes it.
  RecordFacts& facts() { return facts_; }
  MessageFacts facts_of(const Message& message) const;

  /// The id of a message made from these rows of the record.
  std::string_view id(char mode, std::string_view subject, OrdinalRange rows);
  /// The id of a message that passes on an event with this id.
  std::string_view id_of_event(std::string_view event_id);
  Message& add(const Route& route, std::string_view id, std::string_view op);
  /// Completes a message with its body, then with the headers of the format.
  void finish(Message& message, std::string_view body);
  void add_format_headers(Message& message, const MessageFacts& facts);

 private:
  const Plan& plan_;
  FormatHeaders format_headers_;
  Output* output_ = nullptr;
  RecordFacts facts_;
  std::string table_json_;
  std::string id_;
};

}  // namespace relay::envelope
