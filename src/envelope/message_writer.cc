#include "envelope/message_writer.h"

#include "core/text.h"

namespace relay::envelope {

void MessageWriter::start(Output& output) {
  output_ = &output;
  table_json_.clear();
  append_json_string(table_json_, output.shape().name);
}

void MessageWriter::begin() {
  facts_ = {};
  facts_.stream_table = table_json_;
  facts_.shape = &output_->shape();
  facts_.pipeline = plan_.options.pipeline;
  facts_.event_source = plan_.event_source;
  const Record& begun = output_->record();
  facts_.sequence = begun.outbox_id != 0 ? begun.outbox_id : begun.id;
  facts_.at = begun.created_at;
}

MessageFacts MessageWriter::facts_of(const Message& message) const {
  return {facts_, message.id, message.key, message.op, message.headers, false};
}

std::string_view MessageWriter::id(char mode, std::string_view subject, OrdinalRange rows) {
  id_.clear();
  append_message_id(id_, plan_.options.id_prefix, output_->record(), mode, subject, rows);
  id_.append(output_->records().id_suffix);
  return output_->keep(id_);
}

std::string_view MessageWriter::id_of_event(std::string_view event_id) {
  id_.assign(event_id).append(output_->records().id_suffix);
  return output_->keep(id_);
}

Message& MessageWriter::add(const Route& route, std::string_view id, std::string_view op) {
  Message& message = output_->add();
  message.id = id;
  message.subject = route.subject;
  message.key = route.key;
  message.headers = route.headers;
  message.op = op;
  message.content_type = plan_.format->content_type;
  message.full_refresh = facts_.full_refresh;
  message.refused = route.refused;
  return message;
}

void MessageWriter::finish(Message& message, std::string_view body) {
  message.body = output_->keep(body);
  add_format_headers(message, facts_of(message));
}

void MessageWriter::add_format_headers(Message& message, const MessageFacts& facts) {
  if (plan_.format->headers == nullptr || message.refused) return;
  message.headers = format_headers_.build(facts, message.content_type, *output_);
}

}  // namespace relay::envelope
