SELECT pgtrickle.enable_outbox('revenue_by_region');
