"""What is drawn: each module makes one figure of a comparison, as Plotly has them."""
