#include "coordinator/catalog_client.h"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

#include "config/tree.h"
#include "core/log.h"

namespace relay::coordinator {

using ownership::LeaseSession;

using config::PipelineConfig;

namespace {

/// A text that differs whenever a transaction that wrote to the catalog has committed since. Each
/// transaction that writes a row gives it another xmin, whatever it writes and whenever it commits;
/// times and counters tell nothing of a transaction that commits after a later one.
constexpr std::string_view kVersion =
    "select concat(count(*), ' ', md5(string_agg(concat_ws(' ', direction, row_version, name), "
    "' ' order by direction, name collate \"C\"))) from pgtrickle.relay_pipelines";

constexpr std::string_view kCatalog =
    "select name, direction, enabled, config::text from pgtrickle.relay_pipelines order by name";

constexpr std::string_view kControls =
    "select c.pipeline, true, 0, 0, 0, 0 from pgtrickle.relay_pipeline_control c where c.paused "
    "union all select r.pipeline, false, r.id, r.from_id, coalesce(r.to_id, 0), r.number "
    "from pgtrickle.relay_replays r where r.finished_at is null order by 3";

}  // namespace

Result<std::vector<PipelineConfig>> read_catalog(postgres::Connection& connection,
                                                 const config::Catalogue& catalogue,
                                                 const config::HostAccess& access,
                                                 Deadline deadline, std::stop_token stop) {
  const auto rows = connection.query(kCatalog, {}, deadline, std::move(stop));
  if (!rows) return fail(rows.error());
  std::vector<PipelineConfig> pipelines;
  for (int row = 0; row < rows->size(); ++row) {
    pipelines.push_back(config::pipeline_from_json(catalogue, rows->text(row, 0),
                                                   rows->text(row, 1), rows->boolean(row, 2),
                                                   rows->text(row, 3), access));
  }
  return pipelines;
}

std::vector<PipelineConfig> merge(std::vector<PipelineConfig> from_sql,
                                  const std::vector<PipelineConfig>& from_file) {
  std::map<std::string, std::size_t> by_name;
  for (std::size_t i = 0; i < from_sql.size(); ++i) by_name.emplace(from_sql[i].name, i);
  for (const auto& pipeline : from_file) {
    const auto [found, is_new] = by_name.emplace(pipeline.name, from_sql.size());
    if (is_new) {
      from_sql.push_back(pipeline);
      continue;
    }
    PipelineConfig& other = from_sql[found->second];
    other.problems.push_back({ErrorClass::misconfigured,
                              "name_taken",
                              fmt::format("{}: the name {} is that of another pipeline too ({})",
                                          pipeline.place, pipeline.name, other.place),
                              "rename one of the two, or delete it",
                              {}});
    other.fingerprint += pipeline.fingerprint;
    other.enabled = true;
  }
  std::erase_if(from_sql, [](const PipelineConfig& pipeline) { return !pipeline.enabled; });
  return from_sql;
}

std::optional<ControlNotice> control_notice_of(const std::string& payload) {
  const auto tree = config::parse_json(payload, "notification");
  if (!tree) return std::nullopt;
  const config::Node* event = tree->find("event");
  const config::Node* name = tree->find("name");
  if (!event || !event->text() || *event->text() != "control") return std::nullopt;
  if (!name || !name->text()) return std::nullopt;
  const config::Node* action = tree->find("action");
  return ControlNotice{*name->text(), action && action->text() && *action->text() == "resume"};
}

CatalogClient::CatalogClient(const config::Catalogue& catalogue, config::HostAccess access,
                             FileLoader load_file)
    : catalogue_(catalogue),
      access_(std::move(access)),
      load_file_(std::move(load_file)),
      reload_(load_file_ != nullptr) {}

void CatalogClient::start_over() {
  version_.clear();
  requests_due_ = true;
}

void CatalogClient::hear(std::span<const std::string> payloads) {
  for (const std::string& payload : payloads) {
    if (const auto notice = control_notice_of(payload)) {
      named_.insert(notice->pipeline);
      if (notice->resume) resumed_.insert(notice->pipeline);
      requests_due_ = true;
    }
  }
}

void CatalogClient::read_file() {
  if (!load_file_) return;
  auto loaded = load_file_();
  if (loaded) {
    from_file_ = std::move(*loaded);
  } else {
    log::failure("configuration", "", loaded.error());
  }
}

Result<std::optional<std::vector<PipelineConfig>>> CatalogClient::configuration(
    LeaseSession& session, std::stop_token stop) {
  if (reload_.exchange(false)) {
    version_.clear();
    try {
      read_file();
    } catch (...) {
      reload_ = true;  // without memory: again the next time
      throw;
    }
  }
  const auto version = session.query(kVersion, {}, stop);
  if (!version) return fail(version.error());
  const std::string_view now = version->text(0, 0);
  if (now == version_) return std::optional<std::vector<PipelineConfig>>();
  auto from_sql = read_catalog(session.connection(), catalogue_, access_,
                               Deadline::after(LeaseSession::kTimeout), stop);
  if (!from_sql) return fail(from_sql.error());
  version_ = now;
  requests_due_ = true;
  return std::optional(merge(std::move(*from_sql), from_file_));
}

Result<std::optional<Requests>> CatalogClient::requests(LeaseSession& session,
                                                        std::stop_token stop) {
  if (!requests_due_) return std::optional<Requests>();
  const auto rows = session.query(kControls, {}, stop);
  if (!rows) return fail(rows.error());
  requests_due_ = false;
  Requests requests;
  for (int row = 0; row < rows->size(); ++row) {
    Control& control = requests.controls[std::string(rows->text(row, 0))];
    if (rows->boolean(row, 1)) {
      control.paused = true;
    } else {
      control.replays.push_back({rows->integer(row, 2), rows->integer(row, 3),
                                 rows->integer(row, 4), static_cast<int>(rows->integer(row, 5))});
    }
  }
  requests.named = std::exchange(named_, {});
  requests.resumed = std::exchange(resumed_, {});
  return std::optional(std::move(requests));
}

}  // namespace relay::coordinator
