#include "config/pipeline_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "config/option_table.h"
#include "config/same_value.h"
#include "core/characters.h"
#include "core/text.h"

namespace relay::config {
namespace {

constexpr double kGigabyte = 1073741824.0;

constexpr Option<PipelineOptions> kOptions[] = {
    {{.name = "start",
      .type = FieldType::start,
      .default_text = "earliest",
      .meaning = "where a pipeline without a position begins: earliest (all that is kept), "
                 "latest (what commits from now on), snapshot (the rows that the table has, then "
                 "its changes), or the id of the first row",
      .also_in = AlsoIn::outbox_source},
     fills<&PipelineOptions::start>},
    {{.name = "batch_size",
      .type = FieldType::integer,
      .default_text = "1000",
      .meaning = "most records in one read; waiting records are delivered together",
      .min = 1,
      .max = 1e6},
     fills<&PipelineOptions::batch_size>},
    {{.name = "batch_bytes",
      .type = FieldType::bytes,
      .default_text = "8MiB",
      .meaning = "largest batch in bytes; the queue holds half as much again",
      .min = 1,
      .max = kGigabyte},
     fills<&PipelineOptions::batch_bytes>},
    {{.name = "max_in_flight",
      .type = FieldType::integer,
      .meaning = "messages sent and not yet acknowledged; the default is the sink's",
      .min = 1,
      .max = 1e6,
      .also_in = AlsoIn::sink},
     fills<&PipelineOptions::max_in_flight>},
    {{.name = "retry_min",
      .type = FieldType::duration,
      .default_text = "100ms",
      .meaning = "the first wait after a transient failure; also retry = {min, max}",
      .min = 0.001,
      .max = 86400,
      .nested = "retry.min"},
     fills<&PipelineOptions::retry_min>},
    {{.name = "retry_max",
      .type = FieldType::duration,
      .default_text = "30s",
      .meaning = "the longest wait between two tries; a server that cannot be reached is "
                 "tried again after 2 s at the latest",
      .min = 0.001,
      .max = 86400,
      .nested = "retry.max"},
     fills<&PipelineOptions::retry_max>},
    {{.name = "on_reject",
      .type = FieldType::choice,
      .default_text = "dlq",
      .meaning = "what becomes of a message that no retry can deliver: into the dead letters "
                 "(dlq), the same with all later ones of its key (park_key), stop the "
                 "pipeline, or skip it",
      .choices = "dlq,park_key,stop,skip"},
     fills<&PipelineOptions::on_reject>},
    {{.name = "max_record_bytes",
      .type = FieldType::bytes,
      .default_text = "32MiB",
      .meaning = "a larger record is set aside with an error and never fetched",
      .min = 1,
      .max = kGigabyte},
     fills<&PipelineOptions::max_record_bytes>},
    {{.name = "id_prefix", .meaning = "begins each message id; the default is the pipeline's name"},
     fills<&PipelineOptions::id_prefix>},
    {{.name = "message",
      .type = FieldType::choice,
      .default_text = "delta",
      .meaning = "one message a delta, or one a row",
      .choices = "delta,row"},
     fills<&PipelineOptions::message>},
    {{.name = "delta_max_rows",
      .type = FieldType::integer,
      .default_text = "1000",
      .meaning = "a delta of more rows is cut into several messages",
      .min = 1,
      .max = 1e6},
     fills<&PipelineOptions::delta_max_rows>},
    {{.name = "wire_format",
      .type = FieldType::choice,
      .default_text = "native",
      .meaning = "the envelope of messages",
      .choices = "native,debezium,cloudevents"},
     fills<&PipelineOptions::wire_format>},
    {{.name = "cloudevents_mode",
      .type = FieldType::choice,
      .default_text = "structured",
      .meaning = "with wire_format cloudevents: the whole event as body (structured), or its "
                 "attributes in headers and its data as body (binary)",
      .choices = "structured,binary"},
     fills<&PipelineOptions::cloudevents_mode>},
    {{.name = "cloudevents_source",
      .meaning = "with wire_format cloudevents: the attribute source, a URI or a path; the "
                 "default is /pgtrickle/<pipeline>"},
     fills<&PipelineOptions::cloudevents_source>},
    {{.name = "tombstones",
      .type = FieldType::boolean,
      .default_text = "false",
      .meaning = "with one message a row: after each delete, a message with the same key and "
                 "no body, for sinks that have such messages"},
     fills<&PipelineOptions::tombstones>},
    {{.name = "subject_template",
      .meaning = "subject, topic, key or URL of messages; the default is the sink's",
      .also_in = AlsoIn::sink},
     fills<&PipelineOptions::subject_template>},
    {{.name = "key_template",
      .meaning = "ordering key of messages; the default is the row's key in row mode and the "
                 "stream table in delta mode",
      .also_in = AlsoIn::sink},
     fills<&PipelineOptions::key_template>},
    {{.name = "headers",
      .type = FieldType::map,
      .meaning = "headers that are added to each message; values may be templates",
      .also_in = AlsoIn::sink},
     fills<&PipelineOptions::headers>},
    {{.name = "filter",
      .meaning = "condition on row columns, such as amount > 1000 and region in ('eu','us')"},
     fills<&PipelineOptions::filter>},
    {{.name = "columns",
      .type = FieldType::list,
      .meaning = "columns that are sent; the default is all"},
     fills<&PipelineOptions::columns>},
    {{.name = "ordering",
      .type = FieldType::choice,
      .default_text = "key",
      .meaning = "whether messages of one key keep their order",
      .choices = "key,none"},
     fills<&PipelineOptions::ordering>},
    {{.name = "full_refresh",
      .type = FieldType::choice,
      .default_text = "forward",
      .meaning = "whether full refreshes are sent on or skipped",
      .choices = "forward,skip"},
     fills<&PipelineOptions::full_refresh>},
    {{.name = "event_envelope",
      .type = FieldType::boolean,
      .default_text = "false",
      .meaning = "send an event as {id, type, key, payload} where the sink has no headers"},
     fills<&PipelineOptions::event_envelope>},
    {{.name = "rate_limit",
      .type = FieldType::number,
      .default_text = "0",
      .meaning = "messages a second at most; 0: no limit",
      .max = 1e9},
     fills<&PipelineOptions::rate_limit>},
};

constexpr auto kFields = fields_of(kOptions);

// The database alone obeys them: no member holds their values.
constexpr std::array kRetentionFields = {
    Field{.name = "retention_hours",
          .type = FieldType::integer,
          .meaning = "how long the outbox keeps rows that are delivered",
          .max = 1e6,
          .no_reference = true},
    Field{.name = "retention_hold_hours",
          .type = FieldType::number,
          .default_text = "168",
          .meaning = "how long the pipeline, while it is disabled, holds back the deletion of rows "
                     "that it has not delivered",
          .max = 1e6,
          .no_reference = true},
    Field{.name = "max_hold_hours",
          .type = FieldType::number,
          .meaning =
              "how long the pipeline, while it is enabled, holds them back at most; default: "
              "no limit",
          .max = 1e6,
          .no_reference = true},
    Field{.name = "max_hold_bytes",
          .type = FieldType::bytes,
          .meaning =
              "how large the outbox may grow while the pipeline holds rows back; default: no "
              "limit",
          .min = 1,
          .no_reference = true},
};

const Field* find_nested(std::string_view group, std::string_view member) {
  const auto found = std::find_if(kFields.begin(), kFields.end(), [&](const Field& field) {
    return nested_group(field) == group && nested_member(field) == member;
  });
  return found == kFields.end() ? nullptr : &*found;
}

std::string members_of(std::string_view group) {
  std::vector<std::string_view> names;
  for (const Field& field : kFields) {
    if (nested_group(field) == group) names.push_back(nested_member(field));
  }
  return fmt::format("{}", fmt::join(names, ", "));
}

bool is_group(std::string_view key) {
  return std::any_of(kFields.begin(), kFields.end(), [&](const Field& field) {
    return !field.nested.empty() && nested_group(field) == key;
  });
}

// Options in their nested form under their own names: retry = {min, max} as retry_min, retry_max.
void unfold(Node::Object& object, std::vector<Error>& problems) {
  Node::Object flat;
  for (auto& [key, node] : object) {
    if (!is_group(key)) {
      merge_member(flat, key, std::move(node), problems);
    } else if (node.object()) {
      for (const auto& [member, value] : *node.object()) {
        if (const Field* field = find_nested(key, member)) {
          merge_member(flat, field->name, value, problems);
        } else {
          problems.push_back(problem(value.place(), "unknown_option",
                                     fmt::format("there is no option {} in {}",
                                                 json_string(first_characters(member, 64)), key),
                                     fmt::format("Known here: {}.", members_of(key))));
        }
      }
    } else if (!node.is_null()) {
      problems.push_back(problem(node.place(), "wrong_type",
                                 fmt::format("{} must be an object", key),
                                 fmt::format("Its members are {}.", members_of(key))));
    }
  }
  object = std::move(flat);
}

}  // namespace

FieldTable pipeline_fields() {
  return kFields;
}

FieldTable retention_fields() {
  return kRetentionFields;
}

bool is_pipeline_option(std::string_view key) {
  return is_group(key) || find_field(kFields, key);
}

bool is_retention_option(std::string_view key) {
  return find_field(kRetentionFields, key);
}

void merge_member(Node::Object& object, std::string_view key, Node node,
                  std::vector<Error>& problems) {
  const auto known = std::find_if(object.begin(), object.end(),
                                  [&](const auto& member) { return member.first == key; });
  if (known == object.end()) {
    object.emplace_back(std::string(key), std::move(node));
  } else if (known->second.is_null()) {
    known->second = std::move(node);
  } else if (!node.is_null() && !same_value(known->second, node)) {
    problems.push_back(
        problem(node.place(), "conflict",
                fmt::format("{} says something else than at {}", key, known->second.place()),
                "Give it once."));
  }
}

PipelineOptions read_pipeline_options(Node::Object object, std::string_view place,
                                      std::vector<Error>& problems) {
  unfold(object, problems);
  Checked checked = check(object, kFields, place);
  std::move(checked.problems.begin(), checked.problems.end(), std::back_inserter(problems));
  PipelineOptions options;
  if (auto done = fill(options, kOptions, checked.values); !done) problems.push_back(done.error());
  if (options.retry_min > options.retry_max) {
    const std::string at = checked.values.place("retry_min");
    problems.push_back(problem(at.empty() ? checked.values.place("retry_max") : at, "out_of_range",
                               fmt::format("retry_min ({}ms) is more than retry_max ({}ms)",
                                           options.retry_min.count(), options.retry_max.count()),
                               "Lower retry_min, or raise retry_max."));
  }
  return options;
}

}  // namespace relay::config
