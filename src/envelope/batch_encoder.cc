#include "envelope/batch_encoder.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "core/snapshot_mode.h"
#include "envelope/event_body.h"

namespace relay::envelope {
namespace {

constexpr std::string_view kJson = "application/json";
constexpr std::size_t kKeptBuffer = 1u << 20;
constexpr std::string_view kDeltaOp = "delta";

static_assert(static_cast<Op>(RowChange::Op::insert) == Op::insert &&
              static_cast<Op>(RowChange::Op::update) == Op::update &&
              static_cast<Op>(RowChange::Op::remove) == Op::remove &&
              static_cast<Op>(RowChange::Op::refresh) == Op::refresh);

bool is_empty_array(std::string_view json) {
  return json.empty() || json == "[]" || json == "null";
}

std::string_view array_or_empty(std::string_view json) {
  return is_empty_array(json) ? std::string_view() : json;
}

}  // namespace

MessageBatch BatchEncoder::encode(RecordBatch records) {
  Output output(std::move(records));
  output_ = &output;
  for (std::size_t i = 0; i < output.records().records.size(); ++i) {
    if (output.begin(i)) {
      refusals_.start(output.shape().name);
      renderer_.start(output);
      writer_.start(output);
    }
    encode_record();
  }
  output_ = nullptr;
  // The buffer of one huge delta is not kept.
  if (body_.capacity() > kKeptBuffer) body_ = std::string();
  return output.finish();
}

void BatchEncoder::encode_record() {
  const Record& record = output_->record();
  writer_.begin();
  // A record that does not come from an outbox may share its position with others.
  place_ = Place{record.outbox_id != 0 ? 0 : record.row, 0, true};
  const bool headers_readable = renderer_.begin(record);
  if (record.refused) return refuse_record(record.refused);
  if (!headers_readable) return refuse_record(malformed("the headers are no JSON object"));
  if (const auto* delta = std::get_if<Delta>(&record.content)) {
    encode_delta(*delta);
  } else if (const auto* change = std::get_if<RowChange>(&record.content)) {
    encode_row_change(*change);
  } else {
    encode_event(std::get<Event>(record.content));
  }
}

SharedError BatchEncoder::malformed(std::string_view what) {
  return refusals_.get("malformed", what, "look at the record in its outbox or broker");
}

void BatchEncoder::encode_delta(const Delta& delta) {
  if (delta.full_refresh && plan_.options.skip_full_refresh) return;
  writer_.facts().refresh_mode = delta.refresh_mode;
  writer_.facts().refresh_duration_ms = delta.refresh_duration_ms;
  writer_.facts().full_refresh = delta.full_refresh;
  writer_.facts().snapshot = is_snapshot(delta);
  place_.first_ordinal = delta.first_ordinal;
  place_.part = delta.part;
  place_.final = delta.final;
  if (!has_rows(delta)) {
    if (delta.full_refresh) emit_state_without_rows();
    return;
  }
  rows_.clear();
  if (goes_whole(delta)) {
    bool readable = true;
    const std::string_view op = op_of_whole(delta, readable);
    if (readable) return encode_whole(delta, op, nullptr);
  }
  rows_.clear();
  const bool deleted_readable = reader_.slice_array(array_or_empty(delta.deleted), rows_);
  const std::size_t deleted = rows_.size();
  if (!deleted_readable || !reader_.slice_array(array_or_empty(delta.inserted), rows_)) {
    return encode_whole(delta, kDeltaOp, malformed("the delta is no list of rows"));
  }
  changes_.set(rows_,
               pairing_.of_delta(rows_, deleted, delta.full_refresh, output_->shape().key_columns));
  // A part keeps its number in the whole delta, so it is not cut again.
  emit_changes(delta.part > 0 ? std::numeric_limits<std::int64_t>::max()
                              : plan_.options.delta_max_rows);
}

bool BatchEncoder::has_rows(const Delta& delta) const {
  return !is_empty_array(delta.inserted) || !is_empty_array(delta.deleted);
}

// Whether the raw arrays can be spliced unchanged, without slicing their rows.
bool BatchEncoder::goes_whole(const Delta& delta) const {
  if (plan_.row_mode || plan_.varies_by_row || plan_.varies_by_op || plan_.filter ||
      !plan_.options.columns.empty()) {
    return false;
  }
  return delta.part > 0 ||
         delta.inserted_count + delta.deleted_count <= plan_.options.delta_max_rows;
}

std::string_view BatchEncoder::op_of_whole(const Delta& delta, bool& readable) {
  if (delta.full_refresh) return to_string(Op::refresh);
  if (is_empty_array(delta.deleted)) return to_string(Op::insert);
  if (is_empty_array(delta.inserted)) return to_string(Op::remove);
  // A delta is an update only if all of its rows are.
  const bool may_be = delta.inserted_count == delta.deleted_count;
  if (!may_be || output_->shape().key_columns.empty()) return kDeltaOp;
  readable = reader_.slice_array(array_or_empty(delta.deleted), rows_);
  const std::size_t deleted = rows_.size();
  readable = readable && reader_.slice_array(array_or_empty(delta.inserted), rows_);
  const bool updates =
      readable && pairing_.all_updates(rows_, deleted, output_->shape().key_columns);
  return updates ? to_string(Op::update) : kDeltaOp;
}

void BatchEncoder::encode_whole(const Delta& delta, std::string_view op,
                                const SharedError& refused) {
  Route route;
  if (refused) {
    route = {{}, output_->shape().name, {}, refused};
  } else {
    route = renderer_.of_record(op, output_->shape().name);
  }
  const std::int64_t rows = delta.inserted_count + delta.deleted_count;
  const OrdinalRange range{place_.first_ordinal, place_.first_ordinal + rows - 1};
  Message& message = writer_.add(route, writer_.id('d', route.subject, range), op);
  body_.clear();
  if (plan_.format->delta != nullptr) {
    plan_.format->delta(body_, {writer_.facts_of(message),
                                {array_or_empty(delta.inserted), nullptr, {}},
                                {array_or_empty(delta.deleted), nullptr, {}},
                                rows,
                                place_.part,
                                place_.final});
  } else {
    body_.append(delta.deleted).append(delta.inserted);
  }
  writer_.finish(message, body_);
}

void BatchEncoder::encode_row_change(const RowChange& change) {
  if (change.op == RowChange::Op::refresh) {
    if (plan_.options.skip_full_refresh) return;
    writer_.facts().full_refresh = true;
    if (change.new_row.empty() && change.old_row.empty()) return emit_state_without_rows();
  }
  rows_.clear();
  Change one{static_cast<Op>(change.op), kNoRow, kNoRow, 0, false};
  bool readable = true;
  for (const bool old : {true, false}) {
    const std::string_view text = old ? change.old_row : change.new_row;
    if (text.empty()) continue;
    (old ? one.old_row : one.new_row) = static_cast<std::uint32_t>(rows_.size());
    readable = readable && reader_.slice_object(text, rows_);
  }
  if (!readable) return refuse_record(malformed("the row is no JSON object"));
  changes_.set(rows_, pairing_.of_row_change(rows_, one, output_->shape().key_columns));
  emit_changes(std::numeric_limits<std::int64_t>::max());
}

void BatchEncoder::emit_changes(std::int64_t max_rows) {
  const std::span<const Change> changes = changes_.changes();
  if (changes.empty()) {
    // If the filter leaves no row of a new state, consumers must learn that the state is empty.
    const bool wanted = place_.part <= 1 || (!plan_.varies_by_row && !plan_.row_mode);
    if (writer_.facts().full_refresh && wanted) emit_state_without_rows();
  } else if (plan_.row_mode) {
    for (const Change& change : changes) emit_row(change);
  } else {
    splitter_.split(changes, changes_.routes(), max_rows);
    for (const Piece& piece : splitter_.pieces()) emit_piece(piece);
  }
}

OrdinalRange BatchEncoder::ordinals(const Change& change) const {
  return {place_.first_ordinal + change.first_row(), place_.first_ordinal + change.last_row()};
}

void BatchEncoder::emit_piece(const Piece& piece) {
  const std::span<const Change> changes = changes_.changes();
  const std::span<const std::uint32_t> members = splitter_.changes(piece);
  const Change& first = changes[members.front()];
  inserted_.clear();
  deleted_.clear();
  OrdinalRange range = ordinals(first);
  bool one_op = true;
  for (const std::uint32_t index : members) {
    const Change& change = changes[index];
    if (change.old_row != kNoRow) deleted_.push_back(change.old_row);
    if (change.new_row != kNoRow) inserted_.push_back(change.new_row);
    range.first = std::min(range.first, ordinals(change).first);
    range.last = std::max(range.last, ordinals(change).last);
    one_op = one_op && change.op == first.op;
  }
  std::sort(inserted_.begin(), inserted_.end());
  std::sort(deleted_.begin(), deleted_.end());

  const Route& route = changes_.route(first);
  const RowPrinter rows = printer();
  const bool cut = piece.part > 0;
  Message& message = writer_.add(route, writer_.id('d', route.subject, range),
                                 one_op ? to_string(first.op) : kDeltaOp);
  body_.clear();
  plan_.format->delta(body_, {writer_.facts_of(message),
                              {{}, &rows, inserted_},
                              {{}, &rows, deleted_},
                              static_cast<std::int64_t>(inserted_.size() + deleted_.size()),
                              cut ? piece.part : place_.part,
                              cut ? piece.final : place_.final});
  writer_.finish(message, body_);
}

void BatchEncoder::emit_row(const Change& change) {
  const Route& route = changes_.route(change);
  const RowPrinter rows = printer();
  Message& message =
      writer_.add(route, writer_.id('r', route.subject, ordinals(change)), to_string(change.op));
  message.ordinal = ordinals(change).first;
  body_.clear();
  plan_.format->row(body_, {writer_.facts_of(message), change, rows, ordinals(change).first});
  writer_.finish(message, body_);
  if (plan_.options.tombstones && change.op == Op::remove) add_tombstone(route, change);
}

// A broker that keeps the last message of each key (compaction) removes the key after this one.
void BatchEncoder::add_tombstone(const Route& route, const Change& change) {
  if (route.refused) return;
  Message& message =
      writer_.add(route, writer_.id('t', route.subject, ordinals(change)), to_string(change.op));
  message.content_type = {};
  message.tombstone = true;
}

// After TRUNCATE, or a refresh that left nothing, consumers must learn that all rows are gone.
void BatchEncoder::emit_state_without_rows() {
  const std::string_view op = to_string(Op::refresh);
  const Route route = renderer_.of_record(op, output_->shape().name);
  const OrdinalRange range{place_.first_ordinal, place_.first_ordinal - 1};
  const std::string_view id = writer_.id(plan_.row_mode ? 'r' : 'd', route.subject, range);
  Message& message = writer_.add(route, id, op);
  body_.clear();
  if (plan_.row_mode) {
    const RowPrinter rows = printer();
    const Change change{Op::refresh, kNoRow, kNoRow, 0, false};
    plan_.format->row(body_, {writer_.facts_of(message), change, rows, range.first});
  } else {
    plan_.format->delta(body_, {writer_.facts_of(message), {}, {}, 0, place_.part, place_.final});
  }
  writer_.finish(message, body_);
}

void BatchEncoder::encode_event(const Event& event) {
  rows_.clear();
  RowView row;
  if (plan_.has_columns || plan_.filter) {
    if (!reader_.slice_object(event.payload, rows_)) {
      return refuse_record(
          malformed("the event is no JSON object, but filter or templates ask "
                    "for columns of it"));
    }
    row = {&rows_, 0};
  }
  std::string why;
  if (plan_.filter && plan_.filter->test(row, reader_, true, why) != Filter::Answer::pass) {
    return;
  }
  const Route route = renderer_.of_event(event.type, event.key, row);
  if (route.refused) return refuse_record(route.refused);
  const OrdinalRange range{place_.first_ordinal, place_.first_ordinal};
  const std::string_view id =
      event.id.empty() ? writer_.id('e', route.subject, range) : writer_.id_of_event(event.id);
  Message& message = writer_.add(route, id, event.type);
  message.body = event.payload;
  message.content_type = event.content_type;
  wrap_event(message, event);
}

void BatchEncoder::wrap_event(Message& message, const Event& event) {
  MessageFacts facts = writer_.facts_of(message);
  facts.is_event = true;
  const bool wraps = plan_.format->event != nullptr || plan_.options.event_envelope;
  const bool json = wraps && is_json_type(event.content_type) && reader_.valid(event.payload);
  body_.clear();
  if (plan_.format->event != nullptr) {
    if (plan_.format->event(body_, {facts, event, json})) {
      message.body = output_->keep(body_);
      message.content_type = plan_.format->content_type;
    }
  } else if (plan_.options.event_envelope) {
    append_event_envelope(body_, message.id, event, json);
    message.body = output_->keep(body_);
    message.content_type = kJson;
  }
  writer_.add_format_headers(message, facts);
}

void BatchEncoder::refuse_record(const SharedError& why) {
  const Record& record = output_->record();
  if (const auto* delta = std::get_if<Delta>(&record.content); delta != nullptr) {
    writer_.facts().full_refresh = delta->full_refresh;
    writer_.facts().snapshot = is_snapshot(*delta);
    place_.first_ordinal = delta->first_ordinal;
    if (has_rows(*delta)) return encode_whole(*delta, kDeltaOp, why);
  }
  const Route route{{}, output_->shape().name, {}, why};
  const OrdinalRange range{place_.first_ordinal, place_.first_ordinal};
  const auto* event = std::get_if<Event>(&record.content);
  std::string_view id = event != nullptr ? event->id : std::string_view();
  id = id.empty() ? writer_.id('x', route.subject, range) : writer_.id_of_event(id);
  Message& message = writer_.add(route, id, event != nullptr ? event->type : kDeltaOp);
  if (event != nullptr) {
    message.body = event->payload;
    message.content_type = event->content_type;
    message.key = event->key;
  } else if (const auto* change = std::get_if<RowChange>(&record.content); change != nullptr) {
    message.op = to_string(static_cast<Op>(change->op));
    message.body = change->new_row.empty() ? change->old_row : change->new_row;
  }
}

RowPrinter BatchEncoder::printer() const {
  return {&rows_, plan_.options.columns, output_->shape().key_columns};
}

}  // namespace relay::envelope
