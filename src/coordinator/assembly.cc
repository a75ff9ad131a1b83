#include "coordinator/assembly.h"

#include <fmt/core.h>

#include <algorithm>
#include <map>

#include "config/literals.h"
#include "coordinator/consent.h"
#include "coordinator/sealing.h"
#include "core/secrets.h"
#include "core/text.h"
#include "envelope/template.h"
#include "state/dead_letters.h"

namespace relay::coordinator {

namespace {

using config::Field;
using config::FieldType;
using config::PipelineConfig;

constexpr std::string_view kMaxInFlight = "max_in_flight";

/// The options of both ends of a pipeline, checked.
struct Ends {
  const SinkType* sink = nullptr;
  const SourceType* source = nullptr;
  config::Values sink_values;
  config::Values source_values;
  config::FieldTable sink_table;
  config::FieldTable source_table;
  bool source_is_good = false;  ///< `problems` are none of its options
  bool sink_is_good = false;
  std::vector<Error> problems;

  void add(std::vector<Error> more) {
    problems.insert(problems.end(), std::make_move_iterator(more.begin()),
                    std::make_move_iterator(more.end()));
  }
};

void check_source(const PipelineConfig& config, const Registry& registry, Ends& ends) {
  ends.source = registry.source(config.source_type);
  if (!ends.source) {
    if (!config.source_type.empty()) {
      ends.problems.push_back(registry.missing_source(config.source_type).in_context(config.place));
    }
    return;
  }
  const auto& table = ends.source_table = ends.source->options;
  auto checked = config::check(config.source, table, config.place + ", source");
  ends.source_values = std::move(checked.values);
  ends.add(std::move(checked.problems));
  config::remember_secrets(ends.source_values, table);
  ends.add(problems_of_consent(config, ends.source_values, table));
}

void check_sink(const PipelineConfig& config, const Registry& registry, Ends& ends) {
  ends.sink = registry.sink(config.sink_type);
  if (!ends.sink) {
    if (!config.sink_type.empty()) {
      ends.problems.push_back(registry.missing_sink(config.sink_type).in_context(config.place));
    }
    return;
  }
  config::Node::Object options = config.sink;
  const auto& table = ends.sink_table = ends.sink->options;
  // `max_in_flight` may stand beside the sink as well as in it.
  const bool takes_it = std::any_of(table.begin(), table.end(),
                                    [](const Field& f) { return f.name == kMaxInFlight; });
  if (config.options.max_in_flight && takes_it && !config::find_member(options, kMaxInFlight)) {
    options.emplace_back(kMaxInFlight, config::Node(*config.options.max_in_flight, config.place));
  }
  auto checked = config::check(options, table, config.place + ", sink");
  ends.sink_values = std::move(checked.values);
  ends.add(std::move(checked.problems));
  config::remember_secrets(ends.sink_values, table);
  ends.add(problems_of_consent(config, ends.sink_values, table));
}

/// The subject template: the pipeline's own, the sink's own spelling of it, or what its options
/// imply.
Result<std::string> subject_template(const PipelineConfig& config, const Ends& ends) {
  const std::string& own = ends.sink->subject_option;
  std::string from_sink;
  if (!own.empty() && ends.sink_values.has(own)) from_sink = ends.sink_values.text(own);
  if (!from_sink.empty() && config.options.subject_template) {
    if (*config.options.subject_template != from_sink) {
      return fail(ErrorClass::misconfigured, "two_values",
                  fmt::format("{}: subject_template and {} differ", config.place, own),
                  "give one of them");
    }
  }
  if (config.options.subject_template) return *config.options.subject_template;
  if (!from_sink.empty()) return from_sink;
  if (ends.sink->default_subject) return ends.sink->default_subject(ends.sink_values);
  return std::string("{stream_table}");
}

Result<std::unique_ptr<envelope::Encoder>> make_encoder(const PipelineConfig& config,
                                                        const Ends& ends) {
  const auto subject = subject_template(config, ends);
  if (!subject) return fail(subject.error());
  const config::PipelineOptions& options = config.options;
  envelope::EncoderOptions encoder;
  encoder.id_prefix = options.id_prefix.value_or(config.name);
  encoder.row_mode = options.message == "row";
  encoder.delta_max_rows = options.delta_max_rows;
  encoder.wire_format = options.wire_format;
  encoder.pipeline = config.name;
  encoder.cloudevents_binary = options.cloudevents_mode == "binary";
  encoder.cloudevents_source = options.cloudevents_source;
  encoder.cloudevents_binding = ends.sink->cloudevents;
  encoder.tombstones = options.tombstones;
  if (options.tombstones && !ends.sink->tombstones) {
    return fail(ErrorClass::misconfigured, "tombstones",
                fmt::format("{}: the sink {} has no messages without a body", config.place,
                            ends.sink->name),
                "leave tombstones out");
  }
  encoder.subject_template = *subject;
  encoder.key_template = options.key_template;
  encoder.headers = options.headers;
  encoder.header_rules = ends.sink->headers;
  encoder.filter = options.filter;
  encoder.columns = options.columns;
  encoder.skip_full_refresh = options.full_refresh == "skip";
  encoder.event_envelope = options.event_envelope;
  encoder.escape = ends.sink->escape_with(ends.sink_values);
  auto made = envelope::Encoder::make(std::move(encoder));
  if (!made) return fail(made.error().in_context(config.place));
  return made;
}

OnReject on_reject(const std::string& text) {
  static const std::map<std::string, OnReject, std::less<>> kPolicies = {
      {"dlq", OnReject::dead_letter},
      {"park_key", OnReject::park_key},
      {"stop", OnReject::stop},
      {"skip", OnReject::skip}};
  const auto found = kPolicies.find(text);
  return found == kPolicies.end() ? OnReject::dead_letter : found->second;
}

/// One read brings so small a part of `batch_bytes`: as messages it may be four times as large, and
/// while it waits for room one delivery and a half are in memory already.
constexpr std::size_t kReadShare = 8;

bool ordered(const PipelineConfig& config) {
  return config.options.ordering != "none";
}

PipelineSpec spec_of(const PipelineConfig& config, const Ends& ends) {
  PipelineSpec spec;
  spec.name = config.name;
  spec.limits.records = static_cast<std::size_t>(config.options.batch_size);
  spec.batch_bytes = static_cast<std::size_t>(config.options.batch_bytes);
  spec.limits.bytes = std::max<std::size_t>(spec.batch_bytes / kReadShare, 1);
  spec.retry_min = config.options.retry_min;
  spec.retry_max = config.options.retry_max;
  spec.on_reject = on_reject(config.options.on_reject);
  spec.stops_at_failure = ends.sink->stops_at_failure;
  spec.ordered = ordered(config);
  spec.rate_limit = config.options.rate_limit;
  spec.may_sleep = ends.source->own_outboxes.has_value();
  return spec;
}

BackendContext context_of(const PipelineConfig& config) {
  BackendContext context;
  context.pipeline = config.name;
  context.ordered = ordered(config);
  context.options = config.options;
  context.from_catalog = config.access.has_value();
  return context;
}

BackendContext context_of(const PipelineConfig& config, const Workshop& workshop) {
  BackendContext context = context_of(config);
  context.worker_id = workshop.worker_id;
  context.group = workshop.group;
  context.database = &workshop.pool;
  return context;
}

Ends check_ends(const PipelineConfig& config, const Registry& registry) {
  Ends ends;
  ends.problems = config.problems;
  for (const auto& header : config::secret_headers(config.headers)) {
    secrets::remember(header.text);
  }
  const std::size_t before = ends.problems.size();
  check_source(config, registry, ends);
  const std::size_t between = ends.problems.size();
  check_sink(config, registry, ends);
  ends.source_is_good = before == between;
  ends.sink_is_good = between == ends.problems.size();
  return ends;
}

/// The subject that every message has: that of a template without variables, or with those only
/// that stand for the table.
std::optional<std::string> known_subject(const PipelineConfig& config, const Ends& ends,
                                         const std::optional<RecordedTable>& table) {
  using envelope::Variable;
  const auto text = subject_template(config, ends);
  if (!text) return std::nullopt;
  const auto compiled = envelope::Template::compile(*text, "subject_template");
  if (!compiled || compiled->has_columns()) return std::nullopt;
  envelope::Variables variables;
  for (std::size_t i = 0; i < envelope::kVariables; ++i) {
    const auto variable = static_cast<Variable>(i);
    if (!compiled->uses(variable)) continue;
    const bool of_table = variable == Variable::stream_table || variable == Variable::schema;
    if (!of_table || !table) return std::nullopt;
    const std::string& value = variable == Variable::schema ? table->schema : table->name;
    if (!value.empty()) variables.set(variable, value);
  }
  std::string subject;
  envelope::JsonReader reader;
  compiled->render(subject, variables, envelope::RowView(), reader,
                   ends.sink->escape_with(ends.sink_values));
  return subject;
}

/// What backends find wrong that single options cannot say. Of an end with other problems they say
/// nothing.
void add_problems_of_making(const PipelineConfig& config, Ends& ends) {
  BackendContext context = context_of(config);
  context.looks_only = true;
  const auto add = [&](const auto& made) {
    if (!made) ends.problems.push_back(made.error().in_context(config.place));
  };
  const bool sink = ends.sink && ends.sink_is_good;
  const bool source = ends.source && ends.source_is_good;
  if (sink) add(ends.sink->make(ends.sink_values, context));
  if (source) add(ends.source->make(ends.source_values, context));
}

/// The answer for a pipeline that cannot be made: every problem of its configuration, or `reason`
/// where the configuration has none.
tl::unexpected<Error> refuse(const PipelineConfig& config, const Registry& registry,
                             const Error& reason) {
  auto problems = problems_of(config, registry);
  return fail(problems.empty() ? reason : config::combined(std::move(problems)));
}

}  // namespace

std::vector<Error> problems_of(const PipelineConfig& config, const Registry& registry) {
  Ends ends = check_ends(config, registry);
  add_problems_of_making(config, ends);
  if (!ends.sink) return ends.problems;
  const auto encoder = make_encoder(config, ends);
  // What a template is made of may be an option that the backend has complained of.
  const bool is_told = !encoder && std::ranges::any_of(ends.problems, [&](const Error& problem) {
    return problem.message.ends_with(encoder.error().message);
  });
  if (!encoder && !is_told) ends.problems.push_back(encoder.error());
  return ends.problems;
}

std::vector<Error> warnings_of(const PipelineConfig& config, const Registry& registry) {
  const Ends ends = check_ends(config, registry);
  const auto written = config.access ? config::Written::in_catalog : config::Written::in_file;
  auto warnings = config::warn_of_literals(ends.source_values, ends.source_table, written);
  for (Error& warning : config::warn_of_literals(ends.sink_values, ends.sink_table, written)) {
    warnings.push_back(std::move(warning));
  }
  for (const auto& header : config::secret_headers(config.headers)) {
    if (header.literal) {
      warnings.push_back(config::literal_warning(header, config.place, written));
    }
  }
  return warnings;
}

Result<Assembled> assemble(const PipelineConfig& config, const Workshop& workshop,
                           PipelineHooks hooks, std::shared_ptr<SettledRows> settled) {
  Ends ends = check_ends(config, workshop.registry);
  if (!ends.problems.empty()) return refuse(config, workshop.registry, ends.problems.front());
  auto encoder = make_encoder(config, ends);
  if (!encoder) return refuse(config, workshop.registry, encoder.error());

  Assembled assembled;
  assembled.wake = std::make_shared<Wake>();
  BackendContext context = context_of(config, workshop);
  context.settled = std::move(settled);
  context.wake = assembled.wake;
  context.held = std::make_shared<HeldPosition>();
  auto sink = ends.sink->make(ends.sink_values, context);
  if (!sink) return refuse(config, workshop.registry, sink.error().in_context(config.place));
  auto source = ends.source->make(ends.source_values, context);
  if (!source) return refuse(config, workshop.registry, source.error().in_context(config.place));
  auto letters = std::make_unique<state::DeadLetterTable>(workshop.pool, workshop.dead_letters,
                                                          workshop.group, config.name);
  PipelineSpec spec = spec_of(config, ends);
  spec.seal = make_seal(config, *subject_template(config, ends),
                        config::secret_parts(ends.sink_values, ends.sink_table));
  assembled.pipeline = std::make_unique<Pipeline>(
      std::move(spec), std::move(*source), std::move(*encoder), std::move(*sink),
      std::move(letters), workshop.metrics.pipeline(config.name), std::move(hooks));
  return assembled;
}

Result<Tail> assemble_tail(const PipelineConfig& config, const Registry& registry,
                           postgres::Pool& pool, const std::string& start) {
  Ends ends = check_ends(config, registry);
  if (!ends.problems.empty()) return fail(config::combined(std::move(ends.problems)));
  if (!ends.source->own_outboxes) {
    return fail(ErrorClass::misconfigured, "no_tail",
                fmt::format("{}: only pipelines that read an outbox can be watched", config.place),
                "look into the broker with its own tools");
  }
  auto encoder = make_encoder(config, ends);
  if (!encoder) return fail(encoder.error());
  BackendContext context = context_of(config);
  context.database = &pool;
  context.options.start = start;
  context.looks_only = true;
  context.wake = std::make_shared<Wake>();
  auto source = ends.source->make(ends.source_values, context);
  if (!source) return fail(source.error().in_context(config.place));
  return Tail{std::move(*source), std::move(*encoder), std::move(context.wake)};
}

Result<InspectedEnds> assemble_ends(const PipelineConfig& config, const Workshop& workshop,
                                    const std::optional<RecordedTable>& table) {
  Ends ends = check_ends(config, workshop.registry);
  if (!ends.problems.empty()) return fail(config::combined(std::move(ends.problems)));
  BackendContext context = context_of(config, workshop);
  context.looks_only = true;
  auto sink = ends.sink->make(ends.sink_values, context);
  if (!sink) return fail(sink.error().in_context(config.place));
  InspectedEnds made{std::move(*sink), nullptr, known_subject(config, ends, table)};
  if (ends.source->own_outboxes) return made;
  auto source = ends.source->make(ends.source_values, context);
  if (!source) return fail(source.error().in_context(config.place));
  made.source = std::move(*source);
  return made;
}

std::string outbox_of(const PipelineConfig& config, const Registry& registry) {
  Ends ends;
  check_source(config, registry, ends);
  const bool own = ends.source && ends.source->own_outboxes;
  return own ? ends.source->own_outboxes->name(ends.source_values) : std::string();
}

}  // namespace relay::coordinator
