#include "envelope/router.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "core/text.h"

namespace relay::envelope {
namespace {

// Beyond this many different refusals the memory of them starts afresh.
constexpr std::size_t kRememberedRefusals = 1000;

}  // namespace

void Router::start(Output& output) {
  output_ = &output;
  constant_subject_ = {};
  variables_.set(Variable::stream_table, output.shape().name);
  if (output.shape().schema.empty()) {
    variables_.clear(Variable::schema);
  } else {
    variables_.set(Variable::schema, output.shape().schema);
  }
}

bool Router::begin(const Record& record) {
  const fmt::format_int id(record.outbox_id != 0 ? record.outbox_id : record.id);
  outbox_id_.assign(id.data(), id.size());
  variables_.set(Variable::outbox_id, outbox_id_);
  variables_.clear(Variable::key);
  if (record.refresh_id.empty()) {
    variables_.clear(Variable::refresh_id);
  } else {
    variables_.set(Variable::refresh_id, record.refresh_id);
  }
  return headers_.read(record.headers, reader_, *output_);
}

SharedError Router::refusal(std::string_view code, std::string_view what, std::string_view remedy) {
  if (const auto known = refusals_.find(what); known != refusals_.end()) return known->second;
  if (refusals_.size() >= kRememberedRefusals) refusals_.clear();
  auto error = share(Error{
      ErrorClass::rejected,
      std::string(code),
      fmt::format("{}: {}", output_->shape().name, what),
      std::string(remedy),
      {},
  });
  return refusals_.emplace(std::string(what), std::move(error)).first->second;
}

SharedError Router::missing(const ColumnPath& column) {
  return refusal(
      "missing_column",
      fmt::format("a template asks for column {}, which the row does not have", column.to_string()),
      "correct the template, or the table, and retry the dead letter");
}

Route Router::route(std::string_view op, std::string_view key, const RowView& row, bool event) {
  for (const Variable variable : {Variable::op, Variable::event_type}) {
    op.empty() ? variables_.clear(variable) : variables_.set(variable, op);
  }
  if (event && !key.empty()) {
    variables_.set(Variable::key, key);
  } else {
    variables_.clear(Variable::key);
  }
  render_templates(rendering_, key, row);
  return make(rendering_);
}

void Router::render_templates(Rendering& into, std::string_view default_key, const RowView& row) {
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
  if (absent != nullptr) refuse(into, missing(*absent));
}

void Router::refuse(Rendering& rendering, SharedError why) {
  rendering.text.clear();
  rendering.subject_end = 0;
  rendering.text.append(output_->shape().name);
  rendering.key_end = rendering.text.size();
  rendering.header_ends.clear();
  rendering.refused = std::move(why);
}

Route Router::make(const Rendering& rendering) {
  std::vector<std::string_view> headers;
  std::size_t begin = rendering.key_end;
  for (const std::size_t end : rendering.header_ends) {
    headers.push_back(std::string_view(rendering.text).substr(begin, end - begin));
    begin = end;
  }
  std::string_view subject = constant_subject_;
  if (subject.empty() || rendering.refused) {
    subject = output_->keep(rendering.subject());
    if (!plan_.subject.varies() && !rendering.refused) constant_subject_ = subject;
  }
  const std::string_view table = output_->shape().name;
  return {subject, rendering.key() == table ? table : output_->keep(rendering.key()),
          headers_.build(plan_, headers, *output_), rendering.refused};
}

bool Router::all_updates(const Rows& rows, std::size_t deleted) {
  matcher_.match(rows, deleted, output_->shape().key_columns, partner_);
  return std::find(partner_.begin(), partner_.end(), kNoRow) == partner_.end();
}

void Router::clear_changes() {
  changes_.clear();
  inserts_.clear();
  routes_.clear();
  route_of_.clear();
}

// Each row by itself, so that what passes is the change of the table "WHERE filter": an update of
// which only the new row fits is an insert into that, one of which only the old row fits a delete.
void Router::judge(const Rows& rows) {
  why_refused_.clear();
  passes_.assign(rows.size(), Passes::yes);
  if (!plan_.filter) return;
  std::string why;
  for (std::uint32_t row = 0; row < rows.size(); ++row) {
    const auto answer = plan_.filter->test({&rows, row}, reader_, false, why);
    if (answer == Filter::Answer::pass) continue;
    passes_[row] = Passes::no;
    if (answer == Filter::Answer::cannot_say) {
      passes_[row] = Passes::refused;
      why_refused_[row] = refusal("filter", why, "correct the filter and retry the dead letter");
    }
  }
}

void Router::delta(const Rows& rows, std::size_t deleted, bool refresh) {
  clear_changes();
  judge(rows);
  if (refresh) {
    partner_.assign(rows.size(), kNoRow);
  } else {
    matcher_.match(rows, deleted, output_->shape().key_columns, partner_);
  }
  for (std::uint32_t row = 0; row < rows.size(); ++row) {
    const bool is_old = row < deleted;
    if (partner_[row] == kNoRow) {
      const Op op = refresh ? Op::refresh : is_old ? Op::remove : Op::insert;
      single(rows, {op, is_old ? row : kNoRow, is_old ? kNoRow : row, 0, false});
    } else if (is_old) {
      pair(rows, row, partner_[row]);
    }
  }
  std::sort(inserts_.begin(), inserts_.end(),
            [](const Change& a, const Change& b) { return a.new_row < b.new_row; });
  changes_.insert(changes_.end(), inserts_.begin(), inserts_.end());
}

void Router::change(const Rows& rows, Change change) {
  clear_changes();
  judge(rows);
  const bool both = change.old_row != kNoRow && change.new_row != kNoRow;
  if (both && change.op == Op::update) {
    if (changes_key(rows, change.old_row, change.new_row)) {
      single(rows, {Op::remove, change.old_row, kNoRow, 0, true});
      single(rows, {Op::insert, kNoRow, change.new_row, 0, true});
    } else {
      pair(rows, change.old_row, change.new_row);
    }
  } else if (change.row() != kNoRow) {
    single(rows, change);
  }
  changes_.insert(changes_.end(), inserts_.begin(), inserts_.end());
}

// An old row may be told in part only, without its key: then it is that of the new row.
bool Router::changes_key(const Rows& rows, std::uint32_t old_row, std::uint32_t new_row) {
  if (!read_key(rows, old_row) || !read_key(rows, new_row)) return false;
  return !all_updates(rows, 1);
}

void Router::pair(const Rows& rows, std::uint32_t old_row, std::uint32_t new_row) {
  const Passes old_passes = passes_[old_row];
  const Passes new_passes = passes_[new_row];
  if (old_passes == Passes::refused || new_passes == Passes::refused) {
    refuse(rendering_, why_refused_[old_passes == Passes::refused ? old_row : new_row]);
    push({Op::update, old_row, new_row, 0, false}, rendering_);
  } else if (old_passes == Passes::yes && new_passes == Passes::yes) {
    update(rows, old_row, new_row);
  } else if (new_passes == Passes::yes) {
    single(rows, {Op::insert, kNoRow, new_row, 0, false});
  } else if (old_passes == Passes::yes) {
    single(rows, {Op::remove, old_row, kNoRow, 0, false});
  }
}

void Router::single(const Rows& rows, Change change) {
  if (passes_[change.row()] == Passes::no) return;
  render(rendering_, to_string(change.op), rows, change.row());
  push(change, rendering_);
}

void Router::update(const Rows& rows, std::uint32_t old_row, std::uint32_t new_row) {
  render(rendering_, to_string(Op::update), rows, new_row);
  if (plan_.varies_by_row) {
    render(old_rendering_, to_string(Op::update), rows, old_row);
    // A key that is not from a template is that of the row, and old and new row have the same one.
    const bool same_route = rendering_.subject() == old_rendering_.subject() &&
                            (!plan_.key || rendering_.key() == old_rendering_.key());
    const bool refused = rendering_.refused != nullptr || old_rendering_.refused != nullptr;
    if (!refused && !same_route) {
      single(rows, {Op::remove, old_row, kNoRow, 0, true});
      single(rows, {Op::insert, kNoRow, new_row, 0, true});
      return;
    }
    if (rendering_.refused == nullptr && old_rendering_.refused != nullptr) {
      refuse(rendering_, old_rendering_.refused);
    }
  }
  push({Op::update, old_row, new_row, 0, false}, rendering_);
}

void Router::push(Change change, const Rendering& rendering) {
  change.route = intern(rendering);
  const bool behind = change.op == Op::insert;
  (behind ? inserts_ : changes_).push_back(change);
}

void Router::render(Rendering& into, std::string_view op, const Rows& rows, std::uint32_t row) {
  if (passes_[row] == Passes::refused) return refuse(into, why_refused_[row]);
  variables_.set(Variable::op, op);
  variables_.set(Variable::event_type, op);
  std::string_view key = output_->shape().name;
  if (plan_.uses_key || (plan_.row_mode && !plan_.key)) {
    const bool known = read_key(rows, row);
    if (!known && (plan_.uses_key || !output_->shape().key_columns.empty())) {
      return refuse(into, refusal("no_key", "the row has no known key",
                                  "name the key columns of the outbox (enable_outbox), or set "
                                  "key_template to columns that the row has"));
    }
    variables_.set(Variable::key, key_);
    if (known && plan_.row_mode) key = plan_.format->key_is_object ? key_object(rows, row) : key_;
  }
  render_templates(into, key, {&rows, row});
}

std::string_view Router::key_object(const Rows& rows, std::uint32_t row) {
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
bool Router::read_key(const Rows& rows, std::uint32_t row) {
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

std::uint32_t Router::intern(const Rendering& rendering) {
  const auto newest = static_cast<std::uint32_t>(routes_.size());
  if (plan_.row_mode) {  // each row is a message: nothing to be shared
    routes_.push_back(make(rendering));
    return newest;
  }
  if (newest != 0 && rendering == last_) return last_route_;
  // Lengths first: without them two routes could read the same.
  std::string name = fmt::format("{},{},", rendering.subject_end, rendering.key_end);
  for (const std::size_t end : rendering.header_ends) name += fmt::format("{},", end);
  name += rendering.refused ? "!" + rendering.refused->message : rendering.text;
  const auto [place, is_new] = route_of_.emplace(std::move(name), newest);
  if (is_new) routes_.push_back(make(rendering));
  last_ = rendering;
  last_route_ = place->second;
  return last_route_;
}

}  // namespace relay::envelope
