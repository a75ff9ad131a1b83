#include "cli/check_pipelines.h"

#include <fmt/core.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <deque>
#include <exception>
#include <iterator>
#include <optional>
#include <set>
#include <thread>
#include <utility>

#include "coordinator/assembly.h"
#include "coordinator/catalog_client.h"
#include "core/deadline.h"

namespace relay::cli {

namespace {

using config::PipelineConfig;
using coordinator::RecordedTable;
using postgres::Connection;

constexpr std::chrono::seconds kTimeout{15};
constexpr std::size_t kAtOnce = 8;

std::vector<PipelineConfig> configured(Connection& connection, const Context& context,
                                       Findings& findings) {
  std::vector<PipelineConfig> all = context.file_pipelines;
  auto from_sql = coordinator::read_catalog(connection, context.registry.catalogue(),
                                            context.settings.access, Deadline::after(kTimeout), {});
  if (!from_sql) {
    findings.bad("", from_sql.error());
    return all;
  }
  std::ranges::move(*from_sql, std::back_inserter(all));
  return all;
}

/// Reports what the outbox of a pipeline records, if it has one. `is_made`: the pipeline makes it.
std::optional<RecordedTable> check_outbox(Connection& connection, const std::string& group,
                                          const std::string& pipeline, const std::string& outbox,
                                          bool is_made, Findings& findings) {
  const auto rows = connection.query(
      "select c.outbox_table_name, c.stream_table_name, coalesce(c.stream_table_schema, ''), "
      "c.kind = 'adopted' "
      "or to_regclass(format('pgtrickle.%I', c.outbox_table_name)) is not null "
      "from pgtrickle_internal.outbox_config c join "
      "pgtrickle.relay_pipeline_outbox($1, $2, $3) p using (incarnation) where "
      "p.named_table is null or pgtrickle.relay_outbox_name_holds("
      "p.incarnation, p.named_schema, p.named_table)",
      {outbox, group, pipeline}, Deadline::after(kTimeout), {});
  if (!rows) {
    findings.bad(pipeline, rows.error());
    return std::nullopt;
  }
  if (rows->empty() && is_made) {
    findings.good(pipeline, fmt::format("makes pgtrickle.{} when it first runs", outbox));
    return std::nullopt;
  }
  if (rows->empty()) {
    findings.bad(pipeline, {ErrorClass::misconfigured,
                            "no_outbox",
                            fmt::format("{} has no outbox", outbox),
                            fmt::format("select pgtrickle.enable_outbox({})",
                                        connection.quote_literal(outbox)),
                            {}});
    return std::nullopt;
  }
  // The database reports an outbox that is gone.
  if (rows->boolean(0, 3)) {
    findings.good(pipeline, fmt::format("reads pgtrickle.{}", rows->text(0, 0)));
  }
  return RecordedTable{std::string(rows->text(0, 1)), std::string(rows->text(0, 2))};
}

/// What the checked pipelines read and write, to find pipelines that take from each other.
class Claims {
 public:
  void add(const PipelineConfig& config, const std::vector<Claim>& source,
           const std::vector<Claim>& sink) {
    Holder holder{config.name, sink_of(config), source};
    holder.claims.insert(holder.claims.end(), sink.begin(), sink.end());
    for (Claim& claim : holder.claims) {
      for (std::string& server : claim.servers) {
        if (server.starts_with(kLocal)) server.replace(0, kLocal.size(), "127.0.0.1");
      }
    }
    holders_.push_back(std::move(holder));
  }

  void compare(Findings& findings) const {
    for (std::size_t second = 1; second < holders_.size(); ++second) {
      for (std::size_t first = 0; first < second; ++first) {
        compare(holders_[first], holders_[second], findings);
      }
    }
  }

 private:
  struct Holder {
    std::string pipeline;
    std::string sink;
    std::vector<Claim> claims;
  };

  static constexpr std::string_view kLocal = "localhost";

  static std::string sink_of(const PipelineConfig& config) {
    return config.sink_type + config::Node(config.sink, "").to_json();
  }

  static bool meet(const Claim& one, const Claim& other) {
    if (one.what != other.what) return false;
    return one.servers.empty() || other.servers.empty() ||
           std::ranges::find_first_of(one.servers, other.servers) != one.servers.end();
  }

  /// The most severe conflict of two pipelines.
  static const Claim* met(const Holder& first, const Holder& second) {
    const Claim* found = nullptr;
    for (const Claim& claim : second.claims) {
      const bool meets =
          std::ranges::any_of(first.claims, [&](const Claim& other) { return meet(claim, other); });
      if (meets && (!found || found->shared)) found = &claim;
    }
    return found;
  }

  /// Two pipelines with the same sink share a claim on purpose.
  static void compare(const Holder& first, const Holder& second, Findings& findings) {
    const Claim* const claim = met(first, second);
    if (!claim || (claim->shared && first.sink == second.sink)) return;
    const Error error =
        misconfigured(claim->shared ? "shared" : "taken",
                      fmt::format("it and the pipeline {} use {}: {}", first.pipeline, claim->what,
                                  claim->effect),
                      claim->remedy + (claim->shared ? ", unless that is meant" : ""));
    if (claim->shared) {
      findings.warn(second.pipeline, error);
    } else {
      findings.bad(second.pipeline, error);
    }
  }

  std::vector<Holder> holders_;
};

/// A pipeline that is being checked.
struct Looked {
  PipelineConfig config;
  Findings findings;
  std::optional<coordinator::InspectedEnds> ends;  ///< set if its options are valid
};

void note(Looked& looked, std::string_view type, const Inspection& found) {
  const std::string& name = looked.config.name;
  for (const Error& problem : found.problems) {
    if (looked.config.enabled) {
      looked.findings.bad(name, problem);
    } else {
      looked.findings.warn(name, problem);
    }
  }
  for (const Error& warning : found.warnings) looked.findings.warn(name, warning);
  if (!found.problems.empty()) return;
  const bool here = type == "file" || type == "stdout" || type == "stdin";
  looked.findings.good(name, fmt::format("{} {}", type, here ? "can be used" : "answers"));
  for (const std::string& text : found.notes) looked.findings.good(name, text);
}

void look_outside(Looked& looked) {
  if (!looked.ends) return;
  try {
    if (looked.ends->source) {
      note(looked, looked.config.source_type, looked.ends->source->inspect({}));
    }
    note(looked, looked.config.sink_type, looked.ends->sink->inspect(looked.ends->subject, {}));
  } catch (const std::exception& exception) {
    looked.findings.bad(looked.config.name,
                        {ErrorClass::transient, "exception", exception.what(), {}, {}});
  }
}

/// Checks all pipelines.
class PipelineCheck {
 public:
  PipelineCheck(const Context& context, Connection& connection, Findings& findings)
      : context_(context),
        connection_(connection),
        findings_(findings),
        pool_(session(context), 1),
        workshop_{context.registry, pool_, metrics_, context.settings.relay_group_id, "check"} {}

  void run() {
    std::set<std::string> names;
    std::deque<Looked> all;
    for (PipelineConfig& config : configured(connection_, context_, findings_)) {
      Looked& looked = all.emplace_back(Looked{std::move(config), {}, {}});
      const bool is_new = names.insert(looked.config.name).second;
      if (!is_new) looked.findings.bad(looked.config.name, name_taken(looked.config));
      look_inside(looked);
    }
    look_outside_of(all);
    Claims claims;
    for (const Looked& looked : all) {
      findings_.append(looked.findings);
      if (!looked.ends || !looked.config.enabled) continue;
      const auto& source = looked.ends->source;
      claims.add(looked.config, source ? source->claims() : std::vector<Claim>(),
                 looked.ends->sink->claims());
    }
    claims.compare(findings_);
  }

 private:
  static Connection::Options session(const Context& context) {
    Connection::Options options;
    options.url = context.settings.postgres_url;
    options.application_name = "pgtrickle-relay check";
    return options;
  }

  static Error name_taken(const PipelineConfig& config) {
    return misconfigured("name_taken",
                         fmt::format("{}: another pipeline has this name too", config.place),
                         "rename one of the two, or delete it");
  }

  /// Checks options and outbox.
  void look_inside(Looked& looked) {
    const PipelineConfig& config = looked.config;
    const auto problems = coordinator::problems_of(config, context_.registry);
    for (const Error& problem : problems) looked.findings.bad(config.name, problem);
    for (const Error& warning : coordinator::warnings_of(config, context_.registry)) {
      looked.findings.warn(config.name, warning);
    }
    if (!problems.empty()) return;
    if (!config.enabled) {
      looked.findings.good(config.name, "it is disabled: what is missing for it is a warning");
    }
    const std::string outbox = coordinator::outbox_of(config, context_.registry);
    std::optional<RecordedTable> table;
    if (!outbox.empty()) {
      const bool is_made =
          context_.registry.source(config.source_type)->own_outboxes->made_by_source;
      table =
          check_outbox(connection_, workshop_.group, config.name, outbox, is_made, looked.findings);
    }
    auto ends = coordinator::assemble_ends(config, workshop_, table);
    if (ends) {
      looked.ends = std::move(*ends);
    } else {
      looked.findings.bad(config.name, ends.error());
    }
  }

  /// Checks several at a time, because each unreachable server costs a timeout.
  static void look_outside_of(std::deque<Looked>& all) {
    std::atomic<std::size_t> next = 0;
    std::vector<std::jthread> threads;
    while (threads.size() < std::min(kAtOnce, all.size())) {
      threads.emplace_back([&] {
        for (std::size_t i = next++; i < all.size(); i = next++) look_outside(all[i]);
      });
    }
  }

  const Context& context_;
  Connection& connection_;
  Findings& findings_;
  Metrics metrics_{kMetricsPrefix};
  postgres::Pool pool_;
  coordinator::Workshop workshop_;
};

}  // namespace

void check_pipelines(const Context& context, Connection& connection, Findings& findings) {
  PipelineCheck(context, connection, findings).run();
}

void check_file_pipelines(const Context& context, Findings& findings) {
  for (const auto& pipeline : context.file_pipelines) {
    for (const Error& problem : coordinator::problems_of(pipeline, context.registry)) {
      findings.bad(pipeline.name, problem);
    }
  }
}

}  // namespace relay::cli
