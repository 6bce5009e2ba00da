"""What runs inside every page: cells that explain their errors, extras, Google Colab and Kaggle."""
