#include "envelope/route_renderer.h"

#include <fmt/format.h>

#include <utility>

#include "core/text.h"

namespace relay::envelope {

void RouteRenderer::start(Output& output) {
  output_ = &output;
  constant_subject_ = {};
  variables_.set(Variable::stream_table, output.shape().name);
  if (output.shape().schema.empty()) {
    variables_.clear(Variable::schema);
  } else {
    variables_.set(Variable::schema, output.shape().schema);
  }
}

bool RouteRenderer::begin(const Record& record) {
  const fmt::format_int id(record.outbox_id != 0 ? record.outbox_id : record.id);
  outbox_id_.assign(id.data(), id.size());
  variables_.set(Variable::outbox_id, outbox_id_);
  variables_.clear(Variable::key);
  if (record.refresh_id.empty()) {
    variables_.clear(Variable::refresh_id);
  } else {
    variables_.set(Variable::refresh_id, record.refresh_id);
  }
  return headers_.read(record.headers, plan_.options.header_rules, reader_, *output_);
}

Route RouteRenderer::of_record(std::string_view op, std::string_view key) {
  variables_.set(Variable::op, op);
  variables_.set(Variable::event_type, op);
  variables_.clear(Variable::key);
  render_templates(whole_, key, {});
  return keep(whole_);
}

Route RouteRenderer::of_event(std::string_view type, std::string_view key, const RowView& row) {
  for (const Variable variable : {Variable::op, Variable::event_type}) {
    type.empty() ? variables_.clear(variable) : variables_.set(variable, type);
  }
  key.empty() ? variables_.clear(Variable::key) : variables_.set(Variable::key, key);
  render_templates(whole_, key, row);
  return keep(whole_);
}

void RouteRenderer::render_row(RenderedRoute& into, std::string_view op, const Rows& rows,
                               std::uint32_t row) {
  variables_.set(Variable::op, op);
  variables_.set(Variable::event_type, op);
  std::string_view key = output_->shape().name;
  if (plan_.uses_key || (plan_.row_mode && !plan_.key)) {
    const bool known = read_key(rows, row);
    if (!known && (plan_.uses_key || !output_->shape().key_columns.empty())) {
      return refuse(into, refusals_.get("no_key", "the row has no known key",
                                        "name the key columns of the outbox (enable_outbox), or "
                                        "set key_template to columns that the row has"));
    }
    variables_.set(Variable::key, key_);
    if (known && plan_.row_mode) key = plan_.format->key_is_object ? key_object(rows, row) : key_;
  }
  render_templates(into, key, {&rows, row});
}

void RouteRenderer::render_templates(RenderedRoute& into, std::string_view default_key,
                                     const RowView& row) {
  into.text.clear();
  into.header_ends.clear();
  into.refused = nullptr;
  const ColumnPath* absent =
      plan_.subject.render(into.text, variables_, row, reader_, plan_.options.escape);
  into.subject_end = into.text.size();
  if (absent == nullptr && plan_.key) {
    absent = plan_.key->render(into.text, variables_, row, reader_, nullptr);
  } else {
    into.text.append(default_key);
  }
  into.key_end = into.text.size();
  for (const auto& header : plan_.headers) {
    if (absent != nullptr) break;
    absent = header.value.render(into.text, variables_, row, reader_, nullptr);
    into.header_ends.push_back(into.text.size());
  }
  if (absent == nullptr) return;
  refuse(into,
         refusals_.get("missing_column",
                       fmt::format("a template asks for column {}, which the row does not have",
                                   absent->to_string()),
                       "correct the template, or the table, and retry the dead letter"));
}

void RouteRenderer::refuse(RenderedRoute& into, SharedError why) const {
  into.text.assign(output_->shape().name);
  into.subject_end = 0;
  into.key_end = into.text.size();
  into.header_ends.clear();
  into.refused = std::move(why);
}

Route RouteRenderer::keep(const RenderedRoute& rendered) {
  std::vector<std::string_view> headers;
  std::size_t begin = rendered.key_end;
  for (const std::size_t end : rendered.header_ends) {
    headers.push_back(std::string_view(rendered.text).substr(begin, end - begin));
    begin = end;
  }
  std::string_view subject = constant_subject_;
  if (subject.empty() || rendered.refused) {
    subject = output_->keep(rendered.subject());
    if (!plan_.subject.varies() && !rendered.refused) constant_subject_ = subject;
  }
  const std::string_view table = output_->shape().name;
  return {subject, rendered.key() == table ? table : output_->keep(rendered.key()),
          headers_.build(plan_, headers, *output_), rendered.refused};
}

// {"column":value, ...} of a row whose key is known.
std::string_view RouteRenderer::key_object(const Rows& rows, std::uint32_t row) {
  key_object_.assign("{");
  for (const std::string& column : output_->shape().key_columns) {
    if (key_object_.size() > 1) key_object_.push_back(',');
    append_json_string(key_object_, column);
    key_object_.push_back(':');
    key_object_.append(*rows.find(row, column));
  }
  key_object_.push_back('}');
  return key_object_;
}

// One key column: its value as text. Several: their values as a JSON array.
bool RouteRenderer::read_key(const Rows& rows, std::uint32_t row) {
  const auto& columns = output_->shape().key_columns;
  key_.clear();
  if (columns.size() > 1) key_.push_back('[');
  for (const std::string& column : columns) {
    const std::string_view* value = rows.find(row, column);
    if (value == nullptr) return false;
    if (columns.size() == 1) {
      append_value_text(key_, *value, reader_, nullptr);
    } else {
      if (key_.size() > 1) key_.push_back(',');
      key_.append(*value);
    }
  }
  if (columns.size() > 1) key_.push_back(']');
  return !columns.empty();
}

}  // namespace relay::envelope
