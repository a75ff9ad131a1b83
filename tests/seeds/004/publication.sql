SELECT pgtrickle.create_publication('order_totals');
